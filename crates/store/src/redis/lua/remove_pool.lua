-- Removes a pool that has neither workers nor machines.
--
-- ARGV     name
-- Reply    { 'ok' } or { 'none' } or { 'workers', how many } or { 'machines', how many }

local name = arg()
if not pool_get(name) then return done({ 'none' }) end
local workers = tonumber(call('HGET', P .. 'pool_sizes', name) or 0)
if workers > 0 then return done({ 'workers', workers }) end
local machines = machines_of(name)
if machines > 0 then return done({ 'machines', machines }) end
pool_put(name, false)
standing_put(name, false)
-- As when a worker goes: what only its machines could serve is looked at again.
m.growth = touch('p:' .. name, true)
event('p', name, 1)
return done({ 'ok' })
