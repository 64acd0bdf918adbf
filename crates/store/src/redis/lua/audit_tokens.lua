-- A slice of the audit: a secret is one token's, and every token that ends is forgotten some time (law 12).
--
-- ARGV     id to go on after ('' from the first), tokens at most
-- Reply    { violations, id to go on after, or '' at the end }

local after, most = arg(), number()
local violations = {}
local function violation(text) violations[#violations + 1] = text end
local found = call('ZRANGE', P .. 'token_ids', after == '' and '-' or '(' .. after, '+', 'BYLEX', 'LIMIT', 0, most)
for _, id in ipairs(found) do
  local raw = call('HGET', P .. 'tokens', id)
  local token = raw and unpacked(raw)
  if not token or call('HGET', P .. 'tokens_by_hash', token[1]) ~= id then
    violation('law 12: the secret of token ' .. id .. ' is not found')
  elseif (token[6] >= 0 or token[7] >= 0) ~= (call('ZSCORE', P .. 'tokens_until', id) and true or false) then
    violation('law 12: token ' .. id .. ' is never forgotten, or too early')
  end
end
local tokens, by_hash = call('HLEN', P .. 'tokens'), call('HLEN', P .. 'tokens_by_hash')
if after == '' and (tokens ~= by_hash or tokens ~= call('ZCARD', P .. 'token_ids')) then
  violation('law 12: the lists of the tokens hold one that is not')
end
return { violations, #found == most and found[#found] or '' }
