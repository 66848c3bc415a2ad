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

// swapScript does swaps. It answers 0 if the group has another life. Otherwise it answers with pairs of the number of a swap and
// what is there, nil for nothing, for each swap whose base is not there. It says nothing of the others: they were done, unless
// the unit they are of has one that was not.
//
// KEYS are those of the swaps, then that of the life. ARGV are:
//
//	1 the time to live in milliseconds, empty for ever
//	2 with how many swaps that begins anew, the first ones
//	3 how many swaps are units of their own; they come first
//	4 the life, 8 bytes; if it is empty, it is not looked at and has no key
//	5 the tags of all bases, 8 bytes each
//	6 a byte for each swap of a larger unit: 1 where a unit begins, 2 where the time to live does, or the sum
//	7 and more: the new values, empty to compare only
//
// One MGET takes less time than many GET. But it has nil for what is no string as well, so there GET has to say what it is; a
// list or a set reads as empty. A value of 8 bytes or less has no tag: nobody can base anything on it.
//
// What is only compared is written to as well, with no effect but on its expiry: a server that has become a replica refuses that,
// and must, because it does not know any more what is so.
//
// PSETEX costs most; SETRANGE writes in place. Units use one command for all that they set, after all that can be refused for
// another reason: so a server that lets us use one command and not another has not done half of a unit.
var swapScript = newScript(`local call, sub, byte = redis.call, string.sub, string.byte
local ttl, anew, alone, life, bases, units = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local values, out, n, last = nil, {}, 0, #KEYS
if last <= 4000 then
  values = call('MGET', unpack(KEYS))
else
  values = {}
  for from = 1, last, 4000 do
    local part = call('MGET', unpack(KEYS, from, math.min(from+3999, last)))
    for i = 1, #part do values[from+i-1] = part[i] end
  end
end
if life ~= '' then
  local there = values[last]
  if not there or sub(there, 1, 8) ~= life then return 0 end
  last = last - 1
end
local none = '\0\0\0\0\0\0\0\0'
for i = 1, alone do
  local key, base, value, there = KEYS[i], sub(bases, 8*i-7, 8*i), ARGV[i+6], values[i]
  if not there then
    there = redis.pcall('GET', key)
    if type(there) == 'table' then
      if sub(there.err, 1, 9) ~= 'WRONGTYPE' then return there end
      there = ''
    end
  end
  local as
  if base == none then
    as = not there
  else
    as = there and #there > 8 and sub(there, 1, 8) == base
  end
  if not as then
    out[n+1], out[n+2] = i, there
    n = n + 2
  elseif value == '' then
    if ttl == '' then call('PERSIST', key) else call('PEXPIRE', key, ttl) end
  elseif i <= anew then
    if ttl == '' then call('SET', key, value) else call('PSETEX', key, ttl, value) end
  elseif #value == #there then
    call('SETRANGE', key, '0', value)
  else
    call('SET', key, value, 'KEEPTTL')
  end
end
local first = alone + 1
while first <= last do
  local to = first
  while to < last and byte(units, to+1-alone) % 2 == 0 do to = to + 1 end
  local before = n
  for i = first, to do
    local base, there = sub(bases, 8*i-7, 8*i), values[i]
    if not there then
      there = redis.pcall('GET', KEYS[i])
      if type(there) == 'table' then
        if sub(there.err, 1, 9) ~= 'WRONGTYPE' then return there end
        there = ''
      end
    end
    local as
    if base == none then
      as = not there
    else
      as = there and #there > 8 and sub(there, 1, 8) == base
    end
    if not as then
      out[n+1], out[n+2] = i, there
      n = n + 2
    end
  end
  if n == before then
    for i = first, to do
      if ARGV[i+6] == '' then
        if ttl == '' then call('PERSIST', KEYS[i]) else call('PEXPIRE', KEYS[i], ttl) end
      end
    end
    for i = first, to do
      local value = ARGV[i+6]
      if value ~= '' then
        if byte(units, i-alone) < 2 then
          call('SET', KEYS[i], value, 'KEEPTTL')
        elseif ttl == '' then
          call('SET', KEYS[i], value)
        else
          call('SET', KEYS[i], value, 'PX', ttl)
        end
      end
    end
  end
  first = to + 1
end
return out`)

// livesScript answers with what KEYS[1] has, and sets it to ARGV[1] if it has nothing. PERSIST is there for a replica to refuse it.
var livesScript = newScript(`local there = redis.call('GET', KEYS[1])
if there then
  redis.call('PERSIST', KEYS[1])
  return there
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]`)

// asideScript moves what KEYS[1] has to KEYS[2], if its record is still ARGV[1], and gives it ARGV[2] milliseconds to live. It
// answers 1 if that was done, 0 if something else is there, -1 if KEYS[2] is taken.
var asideScript = newScript(`local there = redis.pcall('GET', KEYS[1])
if type(there) == 'table' then
  if string.sub(there.err, 1, 9) ~= 'WRONGTYPE' then return there end
  there = ''
end
if not there then return 0 end
if #there > 8 then there = string.sub(there, 9) end
if there ~= ARGV[1] then return 0 end
if redis.call('RENAMENX', KEYS[1], KEYS[2]) == 0 then return -1 end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1`)

// probeScript does with a key of its own whatever a swap does, so that it fails where a swap would. ARGV[1] is how long the key
// lives, in milliseconds.
var probeScript = newScript(`local call, key, ttl = redis.call, KEYS[1], ARGV[1]
call('PSETEX', key, ttl, 'probe')
call('SETRANGE', key, '0', 'probe')
call('PERSIST', key)
call('SET', key, 'probe', 'PX', ttl)
call('PEXPIRE', key, ttl)
call('GET', key)
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
