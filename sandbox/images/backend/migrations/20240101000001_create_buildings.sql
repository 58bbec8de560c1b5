CREATE TABLE buildings (
    id                uuid         NOT NULL PRIMARY KEY,
    name              varchar(255) NOT NULL,
    address           text         NOT NULL,
    city              varchar(100) NOT NULL,
    postal_code       varchar(20)  NOT NULL,
    country           varchar(100) NOT NULL,
    total_units       int          NOT NULL CHECK (total_units > 0),
    construction_year int,
    created_at        timestamptz  NOT NULL DEFAULT now(),
    updated_at        timestamptz  NOT NULL DEFAULT now()
);

CREATE INDEX idx_buildings_city ON buildings (city);
CREATE INDEX idx_buildings_created_at ON buildings (created_at);
