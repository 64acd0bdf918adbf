-- Groups between two ids, two at most, that have an index.
--
-- ARGV     first id, last id, index or -1, only this tenant or ''
-- Reply    flat: group, count

local low, high, index, tenant = arg(), arg(), number(), arg()
local reply, from = {}, '[' .. low
while #reply < 4 do
  local found = call('ZRANGE', P .. 'groups', from, '[' .. high, 'BYLEX', 'LIMIT', 0, 100)
  for _, group in ipairs(found) do
    local owner = call('HMGET', P .. 'group:' .. group, 'count', 'tenant')
    local count = tonumber(owner[1])
    if index < count and (tenant == '' or owner[2] == tenant) and #reply < 4 then
      reply[#reply + 1] = group
      reply[#reply + 1] = count
    end
    from = '(' .. group
  end
  if #found < 100 then break end
end
return reply
