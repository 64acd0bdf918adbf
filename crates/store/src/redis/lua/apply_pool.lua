-- Creates or changes a pool.
--
-- ARGV     name, version expected or -1, forget failures, record (see pool.lua)
-- Reply    { 'ok', version } or { 'changed', version } or { 'machines', how many }

local name, expected, renew, pool = arg(), number(), arg() == '1', pool_arg()
local known = pool_get(name)
local version = known and known[O.version] or 0
local is_same = known and known[O.body] == pool[O.body]
if not is_same and expected >= 0 and expected ~= version then return done({ 'changed', version }) end
local machines = machines_of(name)
if machines > 0 and (known and known[O.maker] or '') ~= pool[O.maker] then return done({ 'machines', machines }) end
local standing = standing_get(name)
if standing then
  if renew then
    standing[N.failures], standing[N.quarantined], standing[N.retry_at], standing[N.last_failure] = 0, false, 0, ''
  end
  -- A definition that changed may hold what the old one did not.
  if renew or (known and known[O.machine] or '') ~= pool[O.machine] then
    standing[N.offered] = ''
    standing_put(name, standing)
  end
end
if not is_same then
  put_pool(name, pool)
  version = pool[O.version]
end
return done({ 'ok', version })
