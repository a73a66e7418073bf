-- The codes of one owner, of which there is a bound.
create index claim_code_owner on claim_code (owner, created_at desc, digest);
