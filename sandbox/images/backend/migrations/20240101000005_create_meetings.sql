CREATE TYPE meeting_type AS ENUM ('ordinary', 'extraordinary');
CREATE TYPE meeting_status AS ENUM ('scheduled', 'completed', 'cancelled');

CREATE TABLE meetings (
    id              uuid           NOT NULL PRIMARY KEY,
    building_id     uuid           NOT NULL REFERENCES buildings ON DELETE CASCADE,
    meeting_type    meeting_type   NOT NULL,
    title           varchar(255)   NOT NULL,
    description     text,
    scheduled_date  timestamptz    NOT NULL,
    location        varchar(255)   NOT NULL,
    status          meeting_status NOT NULL DEFAULT 'scheduled',
    agenda          jsonb          NOT NULL DEFAULT '[]',
    attendees_count int,
    created_at      timestamptz    NOT NULL DEFAULT now(),
    updated_at      timestamptz    NOT NULL DEFAULT now()
);

CREATE INDEX idx_meetings_building ON meetings (building_id);
CREATE INDEX idx_meetings_date ON meetings (scheduled_date);
CREATE INDEX idx_meetings_status ON meetings (status);
