// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

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

// swapScript puts each record in the place of the one it is based on, and answers with what is there where that is not so:
// pairs of the number of the op and the value, or nil if there is nothing.
//
// KEYS are those of the ops. ARGV are the time to live in milliseconds, or nothing; with how many ops it begins anew, the first
// ones; the tags of all bases, eight bytes each; then for each op the record, or nothing to compare only.
//
// What is shorter than 25 bytes has no tag, see d2c.RecordTag. What is no string is foreign; it reads as empty. One MGET takes
// less time than many GET, but has nil for what is no string as well, so where it has nil GET has to say what is there. What is
// only compared is written to too, with no effect but on its expiry: a server that has become a replica has to refuse that,
// because it does not know any more what is so. PSETEX costs most; SETRANGE writes in place.
var swapScript = newScript(`local call, sub = redis.call, string.sub
local ttl, anew, bases, out, n = ARGV[1], tonumber(ARGV[2]), ARGV[3], {}, 0
local none = '\0\0\0\0\0\0\0\0'
local values = call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  local key, base, record, there = KEYS[i], sub(bases, 8*i-7, 8*i), ARGV[i+3], values[i]
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
    as = there and #there >= 25 and sub(there, 2, 9) == base
  end
  if not as then
    out[n+1], out[n+2] = i, there
    n = n + 2
  elseif record == '' then
    if ttl == '' then call('PERSIST', key) else call('PEXPIRE', key, ttl) end
  elseif i <= anew then
    if ttl == '' then call('SET', key, record) else call('PSETEX', key, ttl, record) end
  elseif #record == #there then
    call('SETRANGE', key, '0', record)
  else
    call('SET', key, record, 'KEEPTTL')
  end
end
return out`)

// asideScript moves what KEYS[1] has to KEYS[2], if it is still ARGV[1], and gives it ARGV[2] milliseconds to live. It answers
// 1 if that was done, 0 if something else is there, -1 if KEYS[2] is taken.
var asideScript = newScript(`local there = redis.pcall('GET', KEYS[1])
if type(there) == 'table' then
  if string.sub(there.err, 1, 9) ~= 'WRONGTYPE' then return there end
  there = ''
end
if there ~= ARGV[1] then return 0 end
if redis.call('RENAMENX', KEYS[1], KEYS[2]) == 0 then return -1 end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1`)
