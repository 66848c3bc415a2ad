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
