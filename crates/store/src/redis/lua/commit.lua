-- Commits a turn's decisions at once. Each item is checked alone; one bad item touches no other.
--
-- ARGV     session, number,
--          number of placements, for each: container, claim, worker, epoch (number, nonce), revision, nonce,
--            number of devices, for each: device, milli;
--          number of unplaceable containers, for each: container, outcome (JSON);
--          number of shapes that fit again, each a hash; number of returned containers, each an id;
--          number of marks, for each: shape, version, reasons (JSON);
--          number of holds, for each: shape, worker, term
-- Reply    { 'ended' } or { 'old' } or
--          { 'ok', verdicts (flat: attempt or refusal, nonce), fresh (rows of workers),
--            wake (flat: worker, session), version, now }

local session, commit = arg(), number()
if not renew_session(session) then return done({ 'ended' }) end
local last = tonumber(call('HGET', session_key(session), 'commit') or nil)
if last and last == commit then return done(unpacked(call('HGET', session_key(session), 'commit_reply'))) end
if last and last > commit then return done({ 'old' }) end

local function claimed_here(cid)
  local record = live_get(cid)
  return record and record[L.state] == CLAIMED and record[L.session] == session and record
end

local function place(cid, claim, worker, epoch, epoch_nonce, revision, nonce, gpus)
  local record = claimed_here(cid)
  if not record or record[L.claim] ~= claim then return 'claim_lost' end
  local worker_record = worker_get(worker)
  if not worker_record then return 'worker_gone' end
  if worker_record[W.epoch] ~= epoch or worker_record[W.epoch_nonce] ~= epoch_nonce then return 'worker_gone' end
  if status_of(worker_record) ~= 'ready' then return 'not_ready' end
  if worker_record[W.revision] ~= revision then return 'revision_changed' end
  if worker_record[W.wanted] then return 'no_capacity' end
  local hold = worker_record[W.hold]
  if hold and hold[3] > m.now and hold[1] ~= record[L.shape] and record[L.score] >= hold[2] then return 'held' end
  return assign(cid, record, worker, worker_record, gpus, nonce) or 'no_capacity'
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local verdicts, touched, refusing, placements = {}, {}, {}, {}
local containers, workers = {}, {}
for i = 1, number() do
  local placement = { arg(), number(), arg(), number(), arg(), number(), arg(), {} }
  for j = 1, number() * 2 do placement[8][j] = number() end
  placements[i], containers[i], workers[i] = placement, placement[1], placement[3]
end
live_load(containers)
worker_load(workers)
for _, placement in ipairs(placements) do
  local cid, claim, worker, epoch, epoch_nonce, revision, nonce, gpus = unpack(placement)
  local verdict = place(cid, claim, worker, epoch, epoch_nonce, revision, nonce, gpus)
  if type(verdict) == 'number' then touched[worker] = true else refusing[worker] = true end
  verdicts[#verdicts + 1] = verdict
  verdicts[#verdicts + 1] = nonce
end
touched = sorted(touched)
for _, worker in ipairs(touched) do touch_worker(worker) end
for _ = 1, number() do
  local cid, outcome = arg(), arg()
  local record = claimed_here(cid)
  if record then
    if rules_get(record[L.spec])[S.fail] then finish(cid, record, outcome, false) else unclaim(cid) end
  end
end
for _ = 1, number() do unblock(arg()) end
for _ = 1, number() do
  local cid = arg()
  if claimed_here(cid) then unclaim(cid) end
end
for _ = 1, number() do
  local shape, at, reasons = arg(), number(), arg()
  -- A version from nowhere must not keep the shape from ever being looked at again.
  if block(shape, min(at, m.version), reasons) then touch('s:' .. shape) end
end
-- Room on a worker for a blocked shape's best container. One hold per worker and per shape.
for _ = 1, number() do
  local shape, worker, term = arg(), arg(), number()
  local queue = shape_get(shape)
  local best = queue and queue[Q.mark] and head(shape)
  local record = best and worker_get(worker)
  if record and not record[W.hold] and call('HEXISTS', P .. 'held_shapes', shape) == 0 then
    record[W.hold] = { shape, best[1], m.now + term }
    worker_put(worker, record)
    call('ZADD', HOLDS, m.now + term, worker)
    call('HSET', P .. 'held_shapes', shape, worker)
    due_at(m.now + term)
    touch_worker(worker)
  end
end
save()
local wake = {}
for _, worker in ipairs(touched) do
  local record = worker_get(worker)
  if record[W.session] ~= '' then
    wake[#wake + 1] = worker
    wake[#wake + 1] = record[W.session]
  end
end
local reply = { 'ok', verdicts, worker_rows(sorted(refusing)), wake, m.version, m.now }
call('HSET', session_key(session), 'commit', commit, 'commit_reply', pack(reply))
return done(reply)
