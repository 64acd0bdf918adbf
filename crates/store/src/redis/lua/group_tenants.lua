-- Whose some groups are.
--
-- ARGV     number, groups
-- Reply    tenants, '' for a group that is not there

local reply = {}
for i = 1, number() do reply[i] = call('HGET', P .. 'group:' .. arg(), 'tenant') or '' end
return reply
