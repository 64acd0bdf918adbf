-- The names of all workers.
--
-- Reply    names, in no order

return call('HKEYS', P .. 'workers')
