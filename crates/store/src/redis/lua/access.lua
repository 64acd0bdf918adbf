-- Tenants' limits with their token buckets, and tokens.

-- Limits: as written (JSON), most that may wait (-1: no limit), containers per second (0: no rate), burst, and the
-- bucket: thousandths of a container at a time.
local T = { body = 1, backlog_max = 2, per_second = 3, burst = 4, level = 5, at = 6 }
local limits_get, limits_put = records(in_key('tenants'), same)

-- A token: hash of its secret, tenant, role, note ('' or '=note'), times made, of expiry and revocation (-1: none).
local K = { hash = 1, tenant = 2, role = 3, note = 4, created_at = 5, expires_at = 6, revoked_at = 7 }
local token_get, token_put = records(in_key('tokens'), same)

local function keep_token(id, token)
  token_put(id, token)
  call('HSET', P .. 'tokens_by_hash', token[K.hash], id)
  call('ZADD', P .. 'token_ids', 0, id)
  local ends = token[K.expires_at]
  if token[K.revoked_at] >= 0 and (ends < 0 or token[K.revoked_at] < ends) then ends = token[K.revoked_at] end
  if ends >= 0 then call('ZADD', P .. 'tokens_until', ends + OPT.token_record_age_max, id) end
  event('t', id, token[K.tenant], token[K.role], token[K.revoked_at] >= 0 and 1 or 0)
end

local function forget_token(id)
  local token = token_get(id)
  token_put(id, false)
  call('HDEL', P .. 'tokens_by_hash', token[K.hash])
  call('ZREM', P .. 'token_ids', id)
  call('ZREM', P .. 'tokens_until', id)
end

local function token_reply(id, token)
  return { 'ok', id, token[1], token[2], token[3], token[4], token[5], token[6], token[7] }
end
