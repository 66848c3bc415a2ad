// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"crypto/sha1"
	"encoding/hex"
)

// script is what a server runs. It is called by its hash, and sent whole where a server does not know it: after a restart, a
// failover, a SCRIPT FLUSH. Scripts run on Redis 6.2 and later, change keys only if they are not going to fail, and treat
// tags as strings: a Lua number has 53 bits.
type script struct{ source, hash string }

func newScript(source string) *script {
	sum := sha1.Sum([]byte(source)) // what EVALSHA wants
	return &script{source, hex.EncodeToString(sum[:])}
}

// swapScript puts each record in the place of the one it is based on, and answers with what is there where that is not so:
// pairs of the number of the op and the value, or nil if there is nothing.
//
// KEYS are those of the ops. ARGV are the time to live in milliseconds, or nothing; the tags of all bases, eight bytes
// each; then for each op the record, or nothing to compare only.
//
// GETRANGE has bytes 1 to 24: the tag and as much of the rest as shows that a record is not too short, see d2c.RecordTag.
// What is compared only is written to as well, in a way that changes no more than its expiry: a server that has become a
// replica must refuse, for it no longer knows what is so. A value that is no string is nothing but foreign; it reads as
// empty.
var swapScript = newScript(`local call, pcall, sub = redis.call, redis.pcall, string.sub
local ttl, bases, out, n = ARGV[1], ARGV[2], {}, 0
local none = '\0\0\0\0\0\0\0\0'
for i = 1, #KEYS do
  local key, base, record = KEYS[i], sub(bases, 8*i-7, 8*i), ARGV[i+2]
  local ok
  if base == none then
    if record == '' then
      ok = call('EXISTS', key) == 0
      call('PERSIST', key)
    elseif ttl == '' then
      ok = call('SET', key, record, 'NX')
    else
      ok = call('SET', key, record, 'NX', 'PX', ttl)
    end
  else
    local there = pcall('GETRANGE', key, 1, 24)
    ok = type(there) == 'string' and #there == 24 and sub(there, 1, 8) == base
    if ok then
      if record ~= '' then
        if ttl == '' then call('SET', key, record) else call('SET', key, record, 'PX', ttl) end
      else
        if ttl == '' then call('PERSIST', key) else call('PEXPIRE', key, ttl) end
      end
    end
  end
  if not ok then
    local current = pcall('GET', key)
    if type(current) == 'table' then
      if sub(current.err, 1, 9) ~= 'WRONGTYPE' then return current end
      current = ''
    end
    out[n+1], out[n+2] = i, current
    n = n + 2
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
