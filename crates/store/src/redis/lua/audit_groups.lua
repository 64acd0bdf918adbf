-- A slice of the audit: containers one by one, each in exactly one state and where something looks at it.
--
-- ARGV     cursor (group and next index, or '' and 0), containers at most
-- Reply    { counts (queued, claimed, assigned, starting, running, stopping), violations, cursor (group, index; '' at
--            the end), waiting (flat: tenant, queued and claimed of it), cell (see audit_cell) }

local group, index, budget = arg(), number(), number()
local names = { 'queued', 'claimed', 'assigned', 'starting', 'running', 'stopping' }
local counts, violations, waiting = {}, {}, {}
for _, name in ipairs(names) do counts[name] = 0 end
local function violation(text) violations[#violations + 1] = text end

local function check_bound(cid, record)
  local worker = record[7]
  if call('HEXISTS', P .. 'workers', worker) == 0 then
    return violation('law 8: ' .. cid .. ' runs on ' .. worker .. ', which is not known')
  end
  if call('SISMEMBER', P .. 'attempts:' .. worker, cid) == 0 then
    violation('law 8: ' .. cid .. ' runs on ' .. worker .. ', which does not know it')
  end
  local posted = call('ZSCORE', P .. 'outbox:' .. worker, cid)
  local needed = record[14] ~= '' or record[11] == ASSIGNED
  if needed ~= (posted and tonumber(posted) == record[16] or false) then
    violation('law 11: ' .. cid .. ' and the outbox of ' .. worker .. ' disagree')
  end
end

local tenants_of_shapes = {}
local function tenant_of_shape(shape)
  local tenant = tenants_of_shapes[shape]
  if tenant == nil then
    local raw = call('HGET', P .. 'shapes', shape)
    tenant = raw and unpacked(raw)[5] or false
    tenants_of_shapes[shape] = tenant
  end
  return tenant
end

local function wait_more(tenant, count) waiting[tenant] = (waiting[tenant] or 0) + count end

local function check_live(cid, record, tenant)
  local state = state_of(record)
  counts[state] = counts[state] + 1
  if state == 'queued' or state == 'claimed' then wait_more(tenant, 1) end
  if tenant_of_shape(record[4]) ~= tenant then
    violation('law 12: ' .. cid .. ' waits among another tenant\'s containers')
  end
  if state == 'queued' then
    local queued = call('ZSCORE', P .. 'queue:' .. record[4], cid) and 1 or 0
    local delayed = call('ZSCORE', P .. 'delayed', cid) and 1 or 0
    if queued + delayed ~= 1 then
      violation('law 11: ' .. cid .. ' is queued and nothing (or too much) will look at it')
    end
  elseif state == 'claimed' then
    if call('SISMEMBER', P .. 'session:' .. record[7] .. ':claimed', cid) == 0 then
      violation('law 11: ' .. cid .. ' is claimed by a session that does not know it')
    end
  else
    check_bound(cid, record)
  end
end

local function check_range(run, number_of_run, tenant)
  local stop = run[4] + run[5]
  if run[6] >= stop then return end
  counts.queued = counts.queued + stop - run[6]
  wait_more(tenant, stop - run[6])
  if not call('ZSCORE', P .. 'queue:' .. run[2], container(group, run[6]) .. ':' .. number_of_run) then
    violation('law 11: the range of run ' .. number_of_run .. ' of group ' .. group .. ' is in no queue')
  end
end

-- Law 3 within a group: what is neither live nor in a range has finished, and its record is there unless it was pruned.
local function check_group()
  local owner = call('HMGET', P .. 'group:' .. group, 'count', 'runs', 'finished', 'pruned', 'tenant')
  local count, runs = tonumber(owner[1]), tonumber(owner[2])
  local run_number = index < count and run_at(group, runs, index)
  while index < count and budget > 0 do
    local run = run_of_group(group, run_number)
    if index == run[4] then check_range(run, run_number, owner[5]) end
    local past = min(run[6], index + budget)
    for i = index, past - 1 do
      local cid = container(group, i)
      local live = call('HGET', P .. 'live:' .. group, sub(cid, 15))
      local finished = call('HEXISTS', P .. 'finished:' .. group, sub(cid, 15)) == 1
      if live then check_live(cid, unpacked(live), owner[5]) end
      if live and finished then violation('law 4: ' .. cid .. ' is finished and live') end
      if not live and not finished and tonumber(owner[4]) == 0 then violation('law 3: ' .. cid .. ' is nowhere') end
    end
    budget = budget - max(past - index, 1)
    index = past
    if past >= run[6] then
      index, run_number = run[4] + run[5], run_number + 1
    end
  end
  if index < count then return false end
  local live, listed = call('HLEN', P .. 'live:' .. group), call('HLEN', P .. 'finished:' .. group)
  local ranges = 0
  for i = 0, runs - 1 do
    local run = run_of_group(group, i)
    ranges = ranges + run[4] + run[5] - run[6]
  end
  if ranges + live + tonumber(owner[3]) ~= count then
    violation(format('law 3: group %s has %d containers, %d accounted for', group, count,
      ranges + live + tonumber(owner[3])))
  end
  if listed + tonumber(owner[4]) ~= tonumber(owner[3]) then
    violation(format('law 4: group %s: %d finished, %d listed, %d pruned', group, tonumber(owner[3]), listed,
      tonumber(owner[4])))
  end
  return true
end

local from = group == '' and '-' or '[' .. group
for _, id in ipairs(call('ZRANGE', P .. 'groups', from, '+', 'BYLEX', 'LIMIT', 0, budget)) do
  if id ~= group then group, index = id, 0 end
  if budget <= 0 or not check_group() then break end
  index = tonumber(call('HGET', P .. 'group:' .. group, 'count'))
  budget = budget - 1
end
-- The end: nothing after the group that was checked last.
local rest = call('ZRANGE', P .. 'groups', group == '' and '-' or '(' .. group, '+', 'BYLEX', 'LIMIT', 0, 1)
local count = tonumber(group ~= '' and call('HGET', P .. 'group:' .. group, 'count') or 0)
if index >= count and not rest[1] then group, index = '', 0 end
local flat = {}
for i, name in ipairs(names) do flat[i] = counts[name] end
local of_tenants = {}
for tenant, count in pairs(waiting) do
  of_tenants[#of_tenants + 1] = tenant
  of_tenants[#of_tenants + 1] = count
end
return { flat, violations, group, index, of_tenants, audited_cell() }
