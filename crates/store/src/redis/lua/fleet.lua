-- The fleet as servers see it: rows of workers, pools and blocked shapes, for claims, commits and reads.

-- Rows of workers: name, record (packed), static part, capacity (both JSON), for each that there is; the names of the
-- others are added to `gone`.
local function worker_rows(names, gone)
  local rows = {}
  for from = 1, #names, 1000 do
    local some = {}
    for i = from, min(from + 999, #names) do some[#some + 1] = names[i] end
    local found = call('HMGET', P .. 'workers', unpack(some))
    local statics = call('HMGET', P .. 'worker_statics', unpack(some))
    local capacities = call('HMGET', P .. 'worker_capacities', unpack(some))
    for i, name in ipairs(some) do
      if found[i] then
        local n = #rows
        rows[n + 1], rows[n + 2], rows[n + 3], rows[n + 4] = name, found[i], statics[i], capacities[i]
      elseif gone then
        gone[#gone + 1] = name
      end
    end
  end
  return rows
end

-- When the best waiting container of a queue joined it.
local function since_of(member)
  if #member == 24 then return live_get(member)[L.ready_at] end
  return submitted_at(group_of(member))
end

-- What changed in the fleet since `known`: { reload, version, more, workers, gone, pools, gone, blocked, unblocked }.
-- A reload that takes more than one call is continued from the version of the one before (`goes_on`): what changes
-- meanwhile moves to the end of the feed, so each record comes as it is last.
local function fleet_changes(known, first, count, goes_on)
  local reload = not goes_on and (first or known > m.version or known == 0 or known < m.floor)
  count = max(count, 1)
  if reload then known, count = 0, OPT.script_items_max end
  count = min(count, OPT.script_items_max)
  local entries =
    call('ZRANGE', FEED, format('(%.0f', known), '+inf', 'BYSCORE', 'LIMIT', 0, count + 1, 'WITHSCORES')
  local version, more, last = m.version, 0, #entries
  if #entries > count * 2 then
    more, last = 1, count * 2
    version = tonumber(entries[last])
  end
  local workers, gone, pools, pools_gone, blocked, unblocked = {}, {}, {}, {}, {}, {}
  for i = 1, last, 2 do
    local kind, name = sub(entries[i], 1, 1), sub(entries[i], 3)
    if kind == 'w' then
      workers[#workers + 1] = name
    elseif kind == 'p' then
      local pool = pool_get(name)
      if pool then
        pools[#pools + 1] = pool[O.version]
        pools[#pools + 1] = pool[O.body]
      else
        pools_gone[#pools_gone + 1] = name
      end
    else
      local queue = shape_get(name)
      local mark = queue and queue[Q.mark]
      local best = mark and head(name)
      if best then
        local n = #blocked
        blocked[n + 1], blocked[n + 2] = name, call('HGET', P .. 'shape_bodies', name)
        blocked[n + 3], blocked[n + 4], blocked[n + 5], blocked[n + 6] =
          mark[MARK.count], best[1], since_of(best[2]), mark[MARK.at]
      else
        unblocked[#unblocked + 1] = name
      end
    end
  end
  return { reload and 1 or 0, version, more, worker_rows(workers, gone), gone, pools, pools_gone, blocked, unblocked }
end
