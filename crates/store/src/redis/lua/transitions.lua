-- The transitions of attempts: assigned, gone on, stopped, ended, finished; with reservation, outbox,
-- counts and event. What waits is in `waiting`; nothing else moves a container.

local function container_event(cid, record, state)
  event('c', cid, state, record[L.attempts], record[L.state] == BOUND and record[L.worker] or '', '')
end

-- Notes that a worker runs a workload, newest last.
local function remember_affinity(record, key)
  local keys = record[W.affinities]
  if not key or keys[#keys] == key then return end
  for i = #keys, 1, -1 do
    if keys[i] == key then table.remove(keys, i) end
  end
  keys[#keys + 1] = key
  if #keys > OPT.affinity_keys_max then table.remove(keys, 1) end
end

-- Claimed -> Assigned. The caller has checked all but the numbers; false when those do not fit.
local function assign(cid, container_record, worker, worker_record, gpus, nonce)
  local rules = rules_get(container_record[L.spec])
  if not reserve(worker_record, rules, gpus) then return false end
  drop_claim(cid, container_record)
  wait_more(container_record[L.shape], -1)
  local attempts = container_record[L.attempts] + 1
  local shape = container_record[L.shape]
  local bound = { BOUND, attempts, container_record[L.spec], shape, container_record[L.score], nonce, worker,
    worker_record[W.epoch], worker_record[W.epoch_nonce], gpus, ASSIGNED, m.now, -1, '', 0, 0 }
  bound[L.outbox] = post(worker, worker_record, cid)
  live_put(cid, bound)
  count_bound(bound, 1)
  later('SADD', attempts_key(worker), cid)
  worker_record[W.attempts] = worker_record[W.attempts] + 1
  remember_affinity(worker_record, rules[S.affinity])
  worker_put(worker, worker_record)
  if worker_record[W.hold] and worker_record[W.hold][1] == shape then
    drop_hold(worker, worker_record)
    -- What the hold kept beyond this container is anybody's again.
    grow_worker(worker)
  end
  container_event(cid, bound, 'assigned')
  return attempts
end

-- An attempt went on: accepted or running. Going back is ignored.
local function advance(cid, record, to)
  if to <= record[L.phase] then return end
  local was_start = record[L.phase] == ASSIGNED and record[L.stop] == ''
  count_bound(record, -1)
  record[L.phase] = to
  count_bound(record, 1)
  if to == RUNNING then record[L.started_at] = m.now end
  if was_start and record[L.outbox] > 0 then
    later('ZREM', outbox_key(record[L.worker]), cid)
    record[L.outbox] = 0
  end
  live_put(cid, record)
  if record[L.stop] == '' then container_event(cid, record, to == RUNNING and 'running' or 'starting') end
end

-- A bound container is to stop. Nothing when it was told so before with no longer grace.
local function ask_stop(cid, record, by, grace)
  local first = record[L.stop] == ''
  if not first and record[L.grace] <= grace then return end
  if first then
    count_bound(record, -1)
    record[L.stop] = by
    count_bound(record, 1)
  end
  record[L.grace] = grace
  local worker = record[L.worker]
  local worker_record = worker_get(worker)
  -- Its place in the outbox is by container: the new number replaces the old one.
  record[L.outbox] = post(worker, worker_record, cid)
  worker_put(worker, worker_record)
  live_put(cid, record)
  if first then container_event(cid, record, 'stopping') end
end

-- Frees what an attempt held on its worker. The caller moves its container to the next state.
local function release(cid, record)
  count_bound(record, -1)
  local worker = record[L.worker]
  local worker_record = worker_get(worker)
  give_back(worker_record, rules_get(record[L.spec]), record[L.gpus])
  worker_record[W.attempts] = worker_record[W.attempts] - 1
  if worker_record[W.attempts] == 0 then worker_record[W.idle_since] = m.now end
  worker_put(worker, worker_record)
  later('SREM', attempts_key(worker), cid)
  if record[L.outbox] > 0 then later('ZREM', outbox_key(worker), cid) end
  if worker_record[W.wanted] then adopt_capacity(worker, worker_record) end
  grow_worker(worker)
end

local grow_group
do
  -- How much groups' counts grew, written at the end.
  local group_grew = {}
  grow_group = function(group, finished, succeeded)
    local grew = group_grew[group] or { 0, 0 }
    grew[1], grew[2] = grew[1] + finished, grew[2] + succeeded
    group_grew[group] = grew
  end
  settlers[#settlers + 1] = function()
    for group, grew in pairs(group_grew) do
      call('HINCRBY', P .. 'group:' .. group, 'finished', grew[1])
      if grew[2] > 0 then call('HINCRBY', P .. 'group:' .. group, 'succeeded', grew[2]) end
    end
    group_grew = {}
  end
end

-- Any live state -> Finished, for good. `outcome` is its JSON.
local function finish(cid, record, outcome, succeeded)
  live_put(cid, false)
  local finished = { outcome, m.now, false }
  local worker = ''
  if record[L.state] == QUEUED then
    leave_queue(cid, record)
  elseif record[L.state] == CLAIMED then
    drop_claim(cid, record)
  else
    release(cid, record)
    worker = record[L.worker]
    local worker_record = worker_get(worker)
    worker_record[W.finished] = worker_record[W.finished] + 1
    worker_put(worker, worker_record)
    finished[3] = { record[L.attempts], record[L.nonce], worker, record[L.gpus], record[L.assigned_at],
      record[L.started_at] }
  end
  if record[L.state] ~= BOUND then wait_more(record[L.shape], -1) end
  forget_users(record[L.shape], 1)
  local group = group_of(cid)
  grow_group(group, 1, succeeded and 1 or 0)
  m.finished = m.finished + 1
  later('RPUSH', P .. 'finished', format('%.0f %s', m.now, cid))
  later('HSET', P .. 'finished:' .. group, sub(cid, 15), pack(finished))
  event('c', cid, 'finished', record[L.attempts], worker, outcome)
end

local OUTCOME_LOST = '{"outcome":"lost"}'
local OUTCOME_EXPIRED = '{"outcome":"expired"}'
local function outcome_stopped(by) return '{"outcome":"stopped","by":"' .. by .. '"}' end

local wait_after
do
  -- The default retry: so many attempts when the worker is lost.
  local RETRY_NEVER, RETRY_ON_LOST = 0, 1
  local DEFAULT_ATTEMPTS = 5

  -- The wait before the attempt after this one, which ended so; nil when there is no other.
  wait_after = function(rules, attempt, ended)
    if rules[S.retry] == RETRY_NEVER then return nil end
    if rules[S.retry] == RETRY_ON_LOST then
      if ended == 'l' and attempt < DEFAULT_ATTEMPTS then return 0 end
      return nil
    end
    if attempt >= rules[S.attempts_max] or not string.find(rules[S.on], ended, 1, true) then return nil end
    return min(rules[S.backoff] * 2 ^ min(attempt - 1, 32), rules[S.backoff_max])
  end
end

-- Counts the specs that a worker could not run, since it last ran one. One that fails several is cordoned, with the
-- reason, until its owner opens it. Exit codes are the containers' own.
local function judge_worker(worker, spec, ended)
  local kind = sub(ended, 1, 1)
  local record = worker_get(worker)
  if (kind == 's' or kind == 'x') and #record[W.failing] > 0 then
    record[W.failing] = {}
    worker_put(worker, record)
  end
  if kind ~= 'f' or record[W.admin] ~= 'ready' then return end
  local failing, known = record[W.failing], false
  for _, other in ipairs(failing) do known = known or other == spec end
  if not known then failing[#failing + 1] = spec end
  worker_put(worker, record)
  if #failing < OPT.failing_specs_max then return end
  record[W.failing] = {}
  record[W.quarantine] = format('it could not run %d different specs in a row; the last: ', OPT.failing_specs_max)
    .. sub(ended, 2)
  record[W.admin] = 'cordoned'
  record[W.revision] = record[W.revision] + 1
  touch_worker(worker)
  event('w', worker, status_of(record))
end

-- An attempt ended on its worker: the reservation is released, then a retry waits or the container finishes.
-- `ended`: 'x' an exit code other than 0, 'f' and why it failed, 'l' lost, 's' success, '' anything else.
local function end_attempt(cid, record, outcome, ended)
  judge_worker(record[L.worker], record[L.spec], ended)
  ended = sub(ended, 1, 1)
  if record[L.stop] ~= '' then return finish(cid, record, outcome_stopped(record[L.stop]), false) end
  local wait = nil
  if ended == 'x' or ended == 'f' or ended == 'l' then
    wait = wait_after(rules_get(record[L.spec]), record[L.attempts], ended)
  end
  if not wait then return finish(cid, record, outcome, ended == 's') end
  release(cid, record)
  record = { QUEUED, record[L.attempts], record[L.spec], record[L.shape], record[L.score], m.now + wait }
  live_put(cid, record)
  enqueue(cid, record)
  wait_more(record[L.shape], 1)
  container_event(cid, record, 'queued')
end

-- What a worker says of its authoritative attempt: 'a' accepted, 'r' running, 'e' ended.
local function progress(cid, record, kind, outcome, ended)
  if kind == 'a' then
    advance(cid, record, STARTING)
  elseif kind == 'r' then
    advance(cid, record, RUNNING)
  else
    end_attempt(cid, record, outcome, ended)
  end
end
