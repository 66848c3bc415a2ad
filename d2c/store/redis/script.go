// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"crypto/sha1"
	"encoding/hex"
)

// script is what a server runs. It is called by its hash, and sent whole where a server does not know it: after a restart, a
// failover, a SCRIPT FLUSH. Tags are strings in there: a number in Lua has 53 bits.
type script struct{ source, hash string }

func newScript(source string) *script {
	sum := sha1.Sum([]byte(source)) // what EVALSHA wants
	return &script{source, hex.EncodeToString(sum[:])}
}

// swapScript does swaps. It answers 0 if the group has another life, and 1 if it needs the key of older records; it has done nothing
// then. Otherwise it answers with pairs of the number of a swap and what is there, nil for nothing, for each swap whose base is not
// there. It says nothing of the others: they were done, unless the unit they are of has one that was not.
//
// KEYS are those of the records, of the life, and, or not, of the older records. ARGV are:
//
//	1 the time to live in milliseconds, 0 for ever
//	2 the life, 8 bytes
//	3 the tags of all bases, 8 bytes each
//	4 a byte for each swap, 1 if it continues the unit of the one before; or nothing, if all are units of their own
//	5 the version at which all bases are known to be there, with nothing that is only compared; empty if that is not known
//	6 the next version
//	7 and more: for each swap the field and the new value, empty to compare only
//
// Records expire by two hashes. All writes go to the newer one, which is to live for twice the time to live. When half of that is
// over, it becomes the older one, and what is in there moves as it is written. So a record lives for one to two times the time to
// live, by the clock of the server alone. It is in one of the two: it is written to the newer before it is taken from the older, and
// the newer is asked first.
//
// The field version is another one after each change of the newer hash. So who has just read all records of a call need not have
// them compared. After a call that had to, the version is longer than a client's: what follows it must be compared too.
//
// MGET has nil for what is no string, so a foreign value is no life. A value of 8 bytes or less has no tag: nobody can base anything
// on it. What is only compared is a write as well, with no effect: a server that has become a replica refuses that, and must, because
// it does not know any more what is so.
//
// What is written is one HSET, after all that can be refused for another reason, so a server that lets us use one command and not
// another has not done half of a unit. The field about is longer than a server allows in a hash that it keeps as a list, which would
// take less memory, and be searched from its start.
var swapScript = newScript(`local call, sub, byte, min = redis.call, string.sub, string.byte, math.min
local key, older, ttl, bases, continues = KEYS[1], KEYS[3], tonumber(ARGV[1]), ARGV[3], ARGV[4]
local n = #bases/8
if sub(call('MGET', KEYS[2])[1] or '', 1, 8) ~= ARGV[2] then return 0 end
local left = call('PTTL', key)
local turn = left >= 0 and left < ttl
if ARGV[5] ~= '' and not turn and (left == -1) == (ttl == 0) and call('HMGET', key, 'version')[1] == ARGV[5] then
  call('HSET', key, 'version', unpack(ARGV, 6))
  return {}
end
local fields = {}
for i = 1, n do fields[i] = ARGV[2*i+5] end
local function get(from, fields, first, last)
  local values = redis.pcall('HMGET', from, unpack(fields, first, last))
  if values.err then return nil, {err = values.err .. ': ' .. from} end
  return values
end
local there, moves, missing, m = {}, {}, {}, 0
for from = 1, n, 4000 do
  local to = min(from+3999, n)
  local values, err = get(key, fields, from, to)
  if err then return err end
  for i = from, to do
    local value = values[i-from+1]
    there[i] = value
    if not value then
      m = m+1
      missing[m] = i
    end
  end
end
if not older and (m > 0 or turn) then return 1 end
for from = 1, m, 4000 do
  local to, some = min(from+3999, m), {}
  for k = from, to do some[k-from+1] = fields[missing[k]] end
  local values, err = get(older, some, 1, to-from+1)
  if err then return err end
  for k = from, to do
    local i, value = missing[k], values[k-from+1]
    there[i], moves[i] = value, value
  end
end
local none = '\0\0\0\0\0\0\0\0'
local out, k, doing, d = {}, 0, {}, 0
local unit = 0
for i = 1, n do
  local base, value, as = sub(bases, 8*i-7, 8*i), there[i]
  if base == none then
    as = not value
  else
    as = value and #value > 8 and sub(value, 1, 8) == base
  end
  if continues == '' or byte(continues, i) == 0 then unit = d end
  if not as then
    out[k+1], out[k+2] = i, value
    k = k+2
    if unit >= 0 then d, unit = unit, -1 end
  elseif unit >= 0 then
    d = d+1
    doing[d] = i
  end
end
if d == 0 then return out end
local anew, set = left == -2, left == -1
if turn then
  anew = call('RENAMENX', key, older) == 1
  set = not anew
  if anew then moves = there end
end
local put, p, gone, q = {}, 0, {}, 0
for k = 1, d do
  local i = doing[k]
  local field, value, was = fields[i], ARGV[2*i+6], moves[i]
  if value == '' then value = was end
  if value then
    put[p+1], put[p+2] = field, value
    p = p+2
  end
  if was then
    q = q+1
    gone[q] = field
  end
end
if p > 0 then
  put[p+1], put[p+2] = 'version', ARGV[6] .. '-'
  p = p+2
  if anew then
    put[p+1], put[p+2] = 'about', 'Fields are identities of streams, and values their state: see deltaring, d2c/store/redis'
    p = p+2
    set = true
  end
  for from = 1, p, 4000 do call('HSET', key, unpack(put, from, min(from+3999, p))) end
elseif left > 0 then
  call('PEXPIRE', key, left)
else
  call('PERSIST', key)
end
if ttl == 0 then
  if left >= 0 then call('PERSIST', key) end
elseif set then
  call('PEXPIRE', key, 2*ttl)
end
for from = 1, q, 4000 do call('HDEL', older, unpack(gone, from, min(from+3999, q))) end
return out`)

// livesScript answers with what KEYS[1] has, and sets it to ARGV[1] if it has nothing. PERSIST is there for a replica to refuse it.
var livesScript = newScript(`local there = redis.call('GET', KEYS[1])
if there then
  redis.call('PERSIST', KEYS[1])
  return there
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]`)

// asideScript moves the record KEYS[1] or KEYS[2] has under ARGV[1] to KEYS[3], if it is still ARGV[2], and gives it ARGV[3]
// milliseconds to live. It answers 1 if that was done, 0 if something else is there, -1 if KEYS[3] is taken.
var asideScript = newScript(`local call, field = redis.call, ARGV[1]
local value = call('HMGET', KEYS[1], field)[1] or call('HMGET', KEYS[2], field)[1]
if not value then return 0 end
local record = value
if #record > 8 then record = string.sub(record, 9) end
if record ~= ARGV[2] then return 0 end
if not call('SET', KEYS[3], value, 'PX', ARGV[3], 'NX') then return -1 end
call('HDEL', KEYS[1], field, 'version')
call('HDEL', KEYS[2], field)
return 1`)

// probeScript does with a key of its own whatever a swap does, so that it fails where a swap would. ARGV[1] is how long the key
// lives, in milliseconds.
var probeScript = newScript(`local call, key, ttl = redis.call, KEYS[1], ARGV[1]
call('HSET', key, 'probe', '1', 'probed', '1')
call('HDEL', key, 'probed')
call('RENAMENX', key, key)
call('SET', key, '', 'PX', ttl, 'NX')
call('PERSIST', key)
call('PEXPIRE', key, ttl)
call('PTTL', key)
call('HMGET', key, 'probe')
return #call('MGET', key)`)

// What appendScript says of an append.
const (
	appendDone    = '1'
	appendRefused = '0'
	appendGone    = '2' // the log has been compacted beyond it
)

// appendScript appends to each of KEYS, which are logs (see Log.key), and answers with a byte for each. ARGV[1] has two positions for each:
// where the log must end, and where it ends then. The others are the entries, empty to find out only.
//
// Where a log ends elsewhere, it may be this very entry that it ends with, or that others have appended to since: then it was sent before.
// What changes nothing is written nevertheless, as a server that has become a replica refuses that.
var appendScript = newScript(`local call, sub, positions, out = redis.call, string.sub, ARGV[1], {}
for i = 1, #KEYS do
  local key, entry = KEYS[i], ARGV[i+1]
  local after, own = sub(positions, 32*i-31, 32*i-16), sub(positions, 32*i-15, 32*i)
  local there = call('LINDEX', key, '-2')
  if not there and call('LLEN', key) > 0 then there = '' end
  if (there or '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0') == after then
    if entry == '' then
      call('PERSIST', key)
    elseif there then
      call('RPUSH', key, own, entry)
    else
      call('RPUSH', key, after, '', own, entry)
    end
    out[i] = '1'
  else
    call('PERSIST', key)
    out[i] = '0'
    if there and there ~= '' and entry ~= '' then
      local place = struct.unpack('<I8', own) - struct.unpack('<I8', call('LINDEX', key, 0))
      if place <= 0 then
        out[i] = '2'
      elseif 2*place < call('LLEN', key) and call('LINDEX', key, 2*place) == own then
        out[i] = '1'
      end
    end
  end
end
return table.concat(out)`)

// readScript answers with 0 and what the log KEYS[1] has after the position ARGV[1], or, if it does not have that, with 1 and all that it
// has.
var readScript = newScript(`local call, key, after = redis.call, KEYS[1], ARGV[1]
call('PERSIST', key)
local from = call('LINDEX', key, 0)
if from then
  local place = struct.unpack('<I8', after) - struct.unpack('<I8', from)
  if place >= 0 and 2*place < call('LLEN', key) and call('LINDEX', key, 2*place) == after then
    return {0, call('LRANGE', key, 2*place+2, -1)}
  end
end
return {1, call('LRANGE', key, 0, -1)}`)

// compactScript puts the snapshot ARGV[2] in the place of what the log KEYS[1] has up to the position ARGV[1], and answers 1, or 0 if it
// does not have that. The first LTRIM does nothing, but fails where the one that counts would, when it is too late; and to who has
// written something a server at its maxmemory refuses nothing more.
var compactScript = newScript(`local call, key, at = redis.call, KEYS[1], ARGV[1]
call('LTRIM', key, 0, -1)
local from = call('LINDEX', key, 0)
if not from then return 0 end
local number = struct.unpack('<I8', at)
local place = number - struct.unpack('<I8', from)
if number == 0 or place < 0 or 2*place >= call('LLEN', key) or call('LINDEX', key, 2*place) ~= at then return 0 end
call('LSET', key, 2*place+1, ARGV[2])
call('LTRIM', key, 2*place, -1)
return 1`)

// logProbeScript does with a key of its own whatever the scripts for logs do, so that it fails where they would. ARGV[1] is how long the
// key lives, in milliseconds.
var logProbeScript = newScript(`local call, key = redis.call, KEYS[1]
call('RPUSH', key, 'position', 'entry')
call('LINDEX', key, '-2')
call('LRANGE', key, 0, 1)
call('PERSIST', key)
call('LSET', key, 1, 'snapshot')
call('LTRIM', key, 0, 1)
call('PEXPIRE', key, ARGV[1])
return call('LLEN', key) - 1`)
