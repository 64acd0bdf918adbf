-- A slice of the audit: a client key's group is the one it made, and the key ends (law 6).
--
-- ARGV     cursor, keys at a time
-- Reply    { violations, cursor }

local violations = {}
local slice = call('HSCAN', P .. 'keys', arg(), 'COUNT', arg())
for i = 1, #slice[2], 2 do
  local field, stored = slice[2][i], unpacked(slice[2][i + 1])
  local tenant, key = string.match(field, '^(%S*) (.*)$')
  local group = call('HMGET', P .. 'group:' .. stored[1], 'count', 'tenant')
  if group[1] and (tonumber(group[1]) ~= stored[2] or group[2] ~= tenant) then
    violations[#violations + 1] = 'law 6: key \'' .. key .. '\' of ' .. tenant .. ' names a group it did not make'
  end
  local ends = call('ZSCORE', P .. 'keys_until', field)
  if not ends or tonumber(ends) ~= stored[4] then
    violations[#violations + 1] = 'law 6: key \'' .. key .. '\' of ' .. tenant .. ' never ends'
  end
end
return { violations, slice[1] }
