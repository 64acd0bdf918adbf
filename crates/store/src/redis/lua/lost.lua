-- A worker's lease ends: by a sweep, or because it leaves by itself.

-- How often a lost worker past its listing, whose last attempts are kept, is looked at: they may have ended.
local LOST_WORKER_LOOK = 60000

-- A worker's machine is destroyed: whatever it held is lost, and it is gone.
local function end_worker(worker, record)
  for _, cid in ipairs(attempts_of(worker)) do end_attempt(cid, live_get(cid), OUTCOME_LOST, 'l') end
  flush()
  remove_worker(worker, record)
end

-- A lost worker is listed for a while, and what it was to keep is kept for a while.
local function forget_lost(worker, record, lost_at)
  local kept_until = lost_at + OPT.kept_attempt_age_max
  local attempts = attempts_of(worker)
  if kept_until <= m.now then
    for _, cid in ipairs(attempts) do end_attempt(cid, live_get(cid), OUTCOME_LOST, 'l') end
    attempts = {}
  end
  local listed_until = lost_at + OPT.lost_worker_age_max
  if #attempts == 0 then
    if listed_until <= m.now then return remove_worker(worker, record) end
    set_lease(worker, record, listed_until)
  elseif listed_until <= m.now then
    -- An end of its last attempt in between is seen then: a listing may last that much longer.
    set_lease(worker, record, min(kept_until, m.now + LOST_WORKER_LOOK))
  else
    set_lease(worker, record, min(kept_until, listed_until))
  end
end

-- A worker lost its lease: its attempts are lost, but for those that are to be kept.
local function lose_worker(worker, record)
  record[W.lost_at], record[W.session], record[W.stream] = m.now, '', ''
  record[W.idle_since] = m.now
  worker_put(worker, record)
  drop_hold(worker, record)
  event('w', worker, 'lost')
  local kept = 0
  for _, cid in ipairs(attempts_of(worker)) do
    local bound = live_get(cid)
    if rules_get(bound[L.spec])[S.keep] then
      kept = kept + 1
    else
      end_attempt(cid, bound, OUTCOME_LOST, 'l')
    end
  end
  if kept == 0 and record[W.admin] == 'draining' then
    flush()
    return remove_worker(worker, record)
  end
  touch_worker(worker)
  forget_lost(worker, record, m.now)
end
