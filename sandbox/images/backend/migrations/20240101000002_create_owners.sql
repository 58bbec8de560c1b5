CREATE TABLE owners (
    id          uuid         NOT NULL PRIMARY KEY,
    first_name  varchar(100) NOT NULL,
    last_name   varchar(100) NOT NULL,
    email       varchar(255) NOT NULL UNIQUE,
    phone       varchar(20),
    address     text         NOT NULL,
    city        varchar(100) NOT NULL,
    postal_code varchar(20)  NOT NULL,
    country     varchar(100) NOT NULL,
    created_at  timestamptz  NOT NULL DEFAULT now(),
    updated_at  timestamptz  NOT NULL DEFAULT now()
);

CREATE INDEX idx_owners_email ON owners (email);
CREATE INDEX idx_owners_last_name ON owners (last_name);
