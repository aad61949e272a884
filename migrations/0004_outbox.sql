-- Messages written in the transaction of the state change that they announce. A relay publishes them in the
-- order of id, with publisher confirms, and deletes what the broker has taken over.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    export_id uuid NOT NULL REFERENCES exports ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now()
);
