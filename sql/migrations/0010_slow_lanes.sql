-- A lane whose rate was used up lets through only so much at a time once its time is over.
--
--     slow_admits   rows per claim, for the minute after slow_until: what is claimed beyond what
--                   its rate lets through comes straight back
ALTER TABLE rowmill.lanes ADD COLUMN slow_admits integer CHECK (slow_admits > 0);
