-- When the leftovers of an attempt were removed for the first time. A request of a process that died may still be on
-- its way to the store then, so the row stays for a second look.
ALTER TABLE uploads ADD COLUMN removed_at timestamptz;
