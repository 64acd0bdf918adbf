-- What is in front of a container in its shape's queue, from a place in the queue on.
--
-- ARGV     group, index, place, entries at most
-- Reply    {} when it is in no queue, or { shape, score, containers in the entries looked at, next place or -1 }

local group, index, place, count = arg(), number(), number(), number()
local owner = call('HMGET', P .. 'group:' .. group, 'count', 'runs')
if not owner[1] or index >= tonumber(owner[1]) then return {} end
local run_number = run_at(group, tonumber(owner[2]), index)
local run = run_of_group(group, run_number)
local cid = container(group, index)
local key, member, within = P .. 'queue:' .. run[2], cid, 0
if index >= run[6] then
  member, within = container(group, run[6]) .. ':' .. run_number, index - run[6]
end
local rank = call('ZRANK', key, member)
if not rank then return {} end
local before, past = 0, min(rank, place + count)
if past > place then
  for _, entry in ipairs(call('ZRANGE', key, place, past - 1)) do
    if #entry == 24 then
      before = before + 1
    else
      local other = run_of_group(group_of(entry), sub(entry, 26))
      before = before + other[4] + other[5] - index_of(entry)
    end
  end
end
if past < rank then return { run[2], run[3], before, past } end
return { run[2], run[3], before + within, -1 }
