-- What changed in the fleet, for who does not plan turns.
--
-- ARGV     version known, changes at most
-- Reply    see fleet.lua

local known, count = number(), number()
return fleet_changes(known, false, count)
