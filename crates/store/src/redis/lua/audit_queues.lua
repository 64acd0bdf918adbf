-- A slice of the audit: each shape counts what its queue holds, and is where it will be looked at.
--
-- ARGV     place in the first shape's queue, containers counted in it so far, entries at most, number of shapes, hashes
-- Reply    { violations, shapes that are done, place and count in the next, waiting and ready containers of those done,
--            cell (see audit_cell) }

local place, count, budget = number(), number(), number()
local violations, finished, waiting, ready = {}, 0, 0, 0
local function violation(text) violations[#violations + 1] = text end

local function count_of(member)
  if #member == 24 then return 1 end
  local run = run_of_group(group_of(member), sub(member, 26))
  return run[4] + run[5] - index_of(member)
end

local function check_heads(shape, queue)
  local first = call('ZRANGE', P .. 'queue:' .. shape, 0, 0, 'WITHSCORES')
  local looked_at = call('ZSCORE', P .. 'recheck', shape)
  if queue[4] then
    if not looked_at then violation('law 11: blocked shape ' .. shape .. ' is never looked at again') end
    return
  end
  if looked_at then violation('law 11: shape ' .. shape .. ' is not blocked and listed as blocked') end
  local head = first[1] and call('ZSCORE', P .. 'heads', sub(first[1], 15, 24) .. ':' .. shape)
  if first[1] and (not head or tonumber(head) ~= tonumber(first[2])) then
    violation('law 11: the head of shape ' .. shape .. ' is not where claims look')
  end
end

for _ = 1, number() do
  if budget <= 0 then break end
  local shape = arg()
  local raw = call('HGET', P .. 'shapes', shape)
  -- It was forgotten meanwhile.
  local queue = raw and unpacked(raw)
  while queue and budget > 0 do
    local entries = call('ZRANGE', P .. 'queue:' .. shape, place, place + min(budget, 1000) - 1)
    for _, entry in ipairs(entries) do count = count + count_of(entry) end
    place, budget = place + #entries, budget - max(#entries, 1)
    if place >= call('ZCARD', P .. 'queue:' .. shape) then
      if count ~= queue[1] then
        violation(format('law 11: shape %s counts %d waiting, its queue holds %d', shape, queue[1], count))
      end
      check_heads(shape, queue)
      waiting = waiting + queue[1]
      if not queue[4] then ready = ready + queue[1] end
      queue = false
    end
  end
  if queue then break end
  finished, place, count = finished + 1, 0, 0
end
return { violations, finished, place, count, waiting, ready, audited_cell() }
