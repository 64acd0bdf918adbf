-- A slice of the names of all workers, or of all shapes.
--
-- ARGV     'workers' or 'shapes', cursor, names at a time
-- Reply    { cursor, names, in no order; one may come again }

local slice, names = call('HSCAN', P .. arg(), arg(), 'COUNT', arg()), {}
for i = 1, #slice[2], 2 do names[#names + 1] = slice[2][i] end
return { slice[1], names }
