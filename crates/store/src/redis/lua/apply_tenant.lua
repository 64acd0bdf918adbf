-- Sets a tenant's limits. A new rate begins with a full bucket.
--
-- ARGV     tenant, limits as written (JSON), most that may wait or -1, containers per second or 0, burst
-- Reply    { 'ok' } or { 'full' }

local tenant, body, backlog_max, per_second, burst = arg(), arg(), number(), number(), number()
local known = limits_get(tenant)
if known and known[T.body] == body then return done({ 'ok' }) end
if not known and call('HLEN', P .. 'tenants') >= OPT.tenants_max then return done({ 'full' }) end
event('n', tenant, 0)
local level, at = burst * 1000, m.now
if known and known[T.per_second] == per_second and known[T.burst] == burst then
  level, at = known[T.level], known[T.at]
end
limits_put(tenant, { body, backlog_max, per_second, burst, level, at })
return done({ 'ok' })
