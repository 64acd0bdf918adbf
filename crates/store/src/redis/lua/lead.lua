-- The right to buy and give up machines: one session's at a time, with a term that grows with every new holder.

local LEAD = P .. 'lead'

-- { 'ended' } or { 'not_leading', session or '', term, until }; nil when it leads.
local function refusal(session, term)
  if not renew_session(session) then return { 'ended' } end
  if m.lead_until <= m.now then return { 'not_leading', '', 0, 0 } end
  local leader = call('GET', LEAD)
  if leader == session and m.lead_term == term then return nil end
  return { 'not_leading', leader, m.lead_term, m.lead_until }
end

-- The wait after a pool's first failure; doubles with each that follows, to a longest. After so many in a row a pool is
-- in quarantine for a while, after which one machine is tried.
local BACKOFF, BACKOFF_MAX, FAILURES_MAX, QUARANTINE, JITTER_MAX = 5000, 600000, 5, 900000, 1000

-- One more failure of a pool, unless its machine was bought before the last one was counted: a pool that is down fails
-- a whole purchase at once.
local function count_failure(machine, reason, jitter)
  local pool = machine[G.pool]
  local standing = standing_of(pool)
  standing[N.last_failure] = '=' .. reason
  if standing[N.failures] == 0 or machine[G.requested_at] > standing[N.failed_at] then
    standing[N.failures] = standing[N.failures] + 1
    standing[N.failed_at] = m.now
    local wait = min(BACKOFF * 2 ^ min(standing[N.failures] - 1, 16), BACKOFF_MAX)
    standing[N.quarantined] = standing[N.quarantined] or standing[N.failures] >= FAILURES_MAX
    if standing[N.quarantined] then wait = QUARANTINE end
    -- A half of it is fixed, the other by chance, so that pools that failed together do not come back together.
    local half = math.floor(wait / 2)
    standing[N.retry_at] = m.now + half + math.floor(half * min(jitter, JITTER_MAX) / JITTER_MAX)
    event('p', pool, 0)
  end
  standing_put(pool, standing)
end
