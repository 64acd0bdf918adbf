-- Forgets a tenant's limits: it has none but the cell's.
--
-- ARGV     tenant
-- Reply    { 'ok' } or { 'none' }

local tenant = arg()
if not limits_get(tenant) then return done({ 'none' }) end
limits_put(tenant, false)
event('n', tenant, 1)
return done({ 'ok' })
