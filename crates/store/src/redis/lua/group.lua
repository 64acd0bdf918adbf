-- One group.
--
-- ARGV     group
-- Reply    {} or { tenant, name, labels (JSON), count, submitted at, finished, succeeded }

local found = call('HMGET', P .. 'group:' .. arg(), 'tenant', 'name', 'labels', 'count', 'submitted_at', 'finished',
  'succeeded')
if not found[1] then return {} end
return found
