-- Cordons, uncordons or drains a worker.
--
-- ARGV     worker, status wanted, term of a drain or -1
-- Reply    { 1 done, 0 there is no such worker, 2 its machine is given up }

local worker, admin, term = arg(), arg(), number()
local machine = machine_get(worker)
if machine and admin ~= 'draining' and (machine[G.stage] == 'draining' or machine[G.stage] == 'destroying') then
  return done({ 2 })
end
return done({ set_schedulable(worker, admin, term) and 1 or 0 })
