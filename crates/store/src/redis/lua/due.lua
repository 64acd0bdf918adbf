-- When something is due, and the end of every script: all that waited is written, then told.

local HALF_LEASE = math.floor(min(OPT.worker_lease, OPT.session_lease) / 2)

-- When the next sweep has something to do, at the latest by the sweeps' own pace; -1 when nothing is.
local function due()
  local at = -1
  for _, key in ipairs({ 'delayed', 'expiring', 'leases', 'drains', 'holds', 'sessions' }) do
    local first = call('ZRANGE', P .. key, 0, 0, 'WITHSCORES')
    if first[1] and (at < 0 or tonumber(first[2]) < at) then at = tonumber(first[2]) end
    if first[1] and (key == 'leases' or key == 'sessions') then
      -- While there are leases that could end.
      local pace = m.now
      if m.last_sweep > 0 then pace = m.last_sweep + max(math.floor(HALF_LEASE / 2), 1) end
      at = min(at, pace)
    end
  end
  return at
end

local function save()
  for _, write in ipairs(savers) do write() end
  flush()
  for _, write in ipairs(settlers) do write() end
end

local function done(reply)
  save()
  if #events > 0 then write_events() end
  tell()
  m.moves = m.moves + 1
  write_meta()
  return reply
end
