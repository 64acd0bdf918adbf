-- What may be scheduled on a worker.

-- Sets it; false when there is no such worker.
local function set_schedulable(worker, admin, term)
  local record = worker_get(worker)
  if not record then return false end
  local drain_until = term >= 0 and m.now + term or -1
  -- A drain that is sent again must not move its own deadline away.
  if record[W.drain_until] >= 0 and drain_until >= 0 then drain_until = min(record[W.drain_until], drain_until) end
  if record[W.admin] == admin and record[W.drain_until] == drain_until then return true end
  call('ZREM', DRAINS, worker)
  if admin == 'ready' then record[W.quarantine], record[W.failing] = '', {} end
  local changed = record[W.admin] ~= admin
  record[W.admin], record[W.drain_until] = admin, drain_until
  if changed then record[W.revision] = record[W.revision] + 1 end
  worker_put(worker, record)
  if drain_until >= 0 then
    call('ZADD', DRAINS, drain_until, worker)
    due_at(drain_until)
  end
  if admin == 'ready' then grow_worker(worker) else touch_worker(worker) end
  if changed then event('w', worker, status_of(record)) end
  return true
end
