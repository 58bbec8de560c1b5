"""The faults that tests switch on by STANDIN_FAULTS, to see the deploy cope with them."""

from dataclasses import dataclass, field

SWITCHES = {
    "crash_loop": "exit with 1 a second after the port is open",
    "hang_on_term": "ignore SIGTERM",
    "migration_fails": "a further migration is pending and breaks",
    "never_healthy": "health answers 503",
    "no_superadmin_reset": "keep a superadmin password that was changed (the real one does not)",
    "seed_fails": "the realistic seed breaks at its first INSERT, as in f88f8439",
    "slow_on_request": "a request with the header X-Standin-Wait waits so many ms, at most 60 s",
    "tenant_filter": "units and expenses filtered by organisation (the real one leaks them)",
}
NUMBERS = {
    "errors_percent": "so many percent of the requests but health are answered 500",
    "leak_kb": "every request but health keeps so many kB for ever",
    "slow_ms": "every request but health waits so long",
}


@dataclass(frozen=True)
class Faults:
    on: frozenset[str] = field(default_factory=frozenset)
    slow_ms: int = 0
    errors_percent: int = 0
    leak_kb: int = 0

    @property
    def disturb(self) -> bool:
        """Requests are to suffer, not the start."""
        on_request = "slow_on_request" in self.on
        return bool(self.slow_ms or self.errors_percent or self.leak_kb or on_request)

    def __contains__(self, name: str) -> bool:
        return name in self.on


def parse(text: str) -> Faults:
    on: set[str] = set()
    numbers: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        if name in SWITCHES and not equals:
            on.add(name)
        elif name in NUMBERS and value.isascii() and value.isdigit():
            numbers[name] = int(value)
        else:
            known = [*sorted(SWITCHES), *(f"{number}=N" for number in sorted(NUMBERS))]
            raise ValueError(f"STANDIN_FAULTS: no fault {item!r}; there are: {', '.join(known)}")
    if numbers.get("errors_percent", 0) > 100:
        raise ValueError("STANDIN_FAULTS: errors_percent is at most 100")
    return Faults(frozenset(on), **numbers)
