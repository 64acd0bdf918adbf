-- A slice of the shapes that have something waiting, blocked ones included.
--
-- ARGV     cursor
-- Reply    { cursor, flat: hash, body (JSON), waiting, best score, since, reasons (JSON) or '' when not blocked }

local slice = call('HSCAN', P .. 'shapes', arg(), 'COUNT', 100)
local shapes = {}
for i = 1, #slice[2], 2 do
  local hash, queue = slice[2][i], unpacked(slice[2][i + 1])
  local head = queue[1] > 0 and call('ZRANGE', P .. 'queue:' .. hash, 0, 0, 'WITHSCORES')
  if head and head[1] then
    local member, since = head[1], nil
    if #member == 24 then
      since = unpacked(call('HGET', P .. 'live:' .. group_of(member), sub(member, 15)))[6]
    else
      since = tonumber(call('HGET', P .. 'group:' .. group_of(member), 'submitted_at'))
    end
    local n = #shapes
    shapes[n + 1], shapes[n + 2] = hash, call('HGET', P .. 'shape_bodies', hash)
    shapes[n + 3], shapes[n + 4], shapes[n + 5] = queue[1], tonumber(head[2]), since
    shapes[n + 6] = queue[4] and queue[4][2] or ''
  end
end
return { slice[1], shapes }
