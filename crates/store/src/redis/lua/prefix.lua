-- Groups between two ids, two at most, that have an index.
--
-- ARGV     first id, last id, index or -1, only this tenant or '', groups looked at at most, id to go on after or ''
-- Reply    { flat: group, count; id to go on after, or '' at the end }

local low, high, index, tenant, most, after = arg(), arg(), number(), arg(), number(), arg()
local matches = {}
local found = call('ZRANGE', P .. 'groups', after == '' and '[' .. low or '(' .. after, '[' .. high, 'BYLEX', 'LIMIT', 0,
  most)
for _, group in ipairs(found) do
  local owner = call('HMGET', P .. 'group:' .. group, 'count', 'tenant')
  local count = tonumber(owner[1])
  if index < count and (tenant == '' or owner[2] == tenant) and #matches < 4 then
    matches[#matches + 1] = group
    matches[#matches + 1] = count
  end
end
return { matches, #found == most and #matches < 4 and found[#found] or '' }
