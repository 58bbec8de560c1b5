"""Every setting with its meaning and its value for all environments.

Plain values: no logic, no secret. A value here is overridden by the environment's own file, by
the inventory, and by `--data name=value`. Sizes are in kB, MB or GB, powers of 1024; "auto"
follows the machine (koprogo_deploy/sizing.py).
"""

# --- the way to the host -------------------------------------------------------------------------
# The key of its own SSH server, as ssh-keyscan prints it after the name: "ssh-ed25519 AAAA…". None:
# your ~/.ssh/known_hosts has to know the host. README says how to compare it.
ssh_host_key = None
ssh_strict_host_key_checking = "yes"
# SHA-1 and MD5 are neither agreed on nor used (paramiko 4 still would: CVE-2026-44405). A jump host
# is not reached by this setting; there the signatures alone are refused.
ssh_paramiko_connect_kwargs = {
    "disabled_algorithms": {
        "keys": ["ssh-rsa"],  # of the host; RSA keys work on, as rsa-sha2-256 and -512
        "pubkeys": ["ssh-rsa"],  # of who logs in
        "kex": [
            "diffie-hellman-group-exchange-sha1",
            "diffie-hellman-group14-sha1",
            "diffie-hellman-group1-sha1",
        ],
        "macs": ["hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"],
    }
}

# --- the machine ---------------------------------------------------------------------------------
vps_vcpus = 1
vps_memory = "2GB"  # the budget is proven against this, and against what the host really has
vps_disk = "20GB"
vps_disk_kind = "ssd"  # ssd, nvme or hdd
swap = "1GB"  # a safety net, not memory: containers cannot use it; None for none
timezone = "Europe/Brussels"
sysctl = {
    "vm.swappiness": "10",
    "vm.overcommit_memory": "1",
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.all.accept_source_route": "0",
    "kernel.kptr_restrict": "2",
    "kernel.dmesg_restrict": "1",
    "fs.leases-enable": "0",  # a container's lease on a file would hold up each backup of it
}
extra_packages = []
unattended_upgrades = True
journald_limit = "200MB"
time_synchronisation = True
# What else others may reach on the host: ["udp/51820"] for WireGuard, ["tcp/9100"] for an exporter.
# Beside SSH, HTTP and HTTPS the smoke tests take nothing for granted.
expected_listeners = []
admin_users = {}  # {"anna": ["ssh-ed25519 AAAA…"]}: an account with sudo for each
install_root = "/opt/koprogo"

# --- memory: hard limits of the containers, and what else the machine needs ----------------------
traefik_memory = "80MB"
postgres_memory = "auto"  # a quarter of the RAM: 512MB of 2GB
backend_memory = "auto"  # 128MB for each vCPU
frontend_memory = "32MB"
traefik_binary_memory = "192MB"  # the binary's pages, kept in RAM outside its container
backup_memory = "192MB"
engine_memory = "208MB"  # dockerd, containerd and a shim for each container
system_memory = "192MB"
page_cache_memory = "auto"  # 192MB of 2GB

# --- CPU: shared by weight; nobody is capped, so nobody waits while the CPU idles -----------------
traefik_cpu_weight = 2048
postgres_cpu_weight = 1024
backend_cpu_weight = 1024
frontend_cpu_weight = 512

# --- images: resolved to a digest once, when a release is made ------------------------------------
traefik_image = "docker.io/library/traefik:v3.7.15"
postgres_image = "docker.io/library/postgres:17.6-bookworm"
backend_image = "ghcr.io/gilmry/koprogo/backend:main-17f4460"
frontend_image = "ghcr.io/gilmry/koprogo/frontend:main-17f4460"
require_digest = False  # True: every image above must name its digest itself
postgres_major = 17  # of the image; data of a lower one goes up by deploys/postgres_upgrade.py

# --- the front door -------------------------------------------------------------------------------
public_address = None  # where the site is reached if not by its name; None: by its name
scan_address = None  # where the smoke test looks for open ports; None: as above
public_http_port = 80
public_https_port = 443
ca_certificate = None  # a file that signs the site's certificate, if no public authority does
tls = "acme"  # acme, or files with the two below
tls_certificate = None
tls_key = None
acme_email = None
acme_server = "https://acme-v02.api.letsencrypt.org/directory"
acme_ca_certificate = None  # a file that signs the ACME server's own certificate, if it is private
access_log = "off"  # off or stdout; costs Traefik up to half its throughput
rate_limit_average = 250  # requests a second for each client address
rate_limit_burst = 500
login_limit_per_minute = 10
load_client_addresses = []  # exempt from the limits: the machine that runs the load test
superadmin_addresses = []  # who may use the superadmin's pages
edge_network = "172.30.80.0/24"  # Docker network of proxy and applications

# --- the backend -------------------------------------------------------------------------------
backend_command = ["/app/koprogo-api"]
backend_workers = "auto"  # four for each vCPU: a login keeps one busy for 0.4 s
backend_log_level = "warn"  # info logs every request
backend_environment = {}  # more variables for newer images; secrets go to .env.<environment>
backend_start_timeout = "90s"  # migrations included
pool_max_connections = "auto"  # 8 for each vCPU, at most 8 for each 2GB of RAM
pool_min_connections = 2
pool_acquire_timeout = "30s"
superadmin_guard = True  # KoproGo resets admin@koprogo.com to a public password at every start
frontend_read_only = True  # config.js, which KoproGo's image writes at its start, is mounted

# --- Postgres: computed from the limit above; koprogo plan shows each value and its reason -------
postgres_connections_reserve = 9  # 3 superuser, and backup, monitor, migration, psql
postgres_settings = {}  # overrides, such as {"work_mem": "6MB"}

# --- the realistic seed ------------------------------------------------------------------------
seed_enabled = False
seed_number = 1  # the same number gives the same data
seed_scale = 1
seed_via = "sql"  # sql, or api: the application's own endpoint, where it exists

# --- objectives: judged by koprogo load realistic --gate -----------------------------------------
objective_rate = 200  # right answers a second, more than
objective_p50 = "30ms"  # each of these: less than
objective_p99 = "100ms"
objective_errors = "1%"
objective_backend_memory = "128MB"
objective_postgres_memory = "512MB"
objective_traefik_memory = "75MB"
objective_load_average = 2.0
goal_p99 = "10ms"  # ours, tighter: P99 at objective_rate
goal_rate = 600  # ours: a rate at which none of the objectives above is missed

# --- the load test -------------------------------------------------------------------------------
load_cpus = None  # CPUs of this machine that the generator keeps to; None: all
load_max_rate = 1000  # in production: never more requests a second than this
load_max_duration = "10min"  # and never longer

# --- backups: database, uploads and manifest, encrypted, by restic ------------------------------
# A directory of the host, "sftp:user@host:/path" or "s3:https://host/bucket". None: a directory on
# the host itself, which is lost together with it.
backup_repository = None
backup_ssh_key = None  # sftp: a private key's file, without passphrase
backup_host_key = None  # sftp: the storage's own key, "ssh-ed25519 AAAA…", as ssh-keyscan says it
backup_schedule = ["03:30"]  # times of day; what was written since the last one is what can be lost
backup_drill_schedule = "Sun 04:30"  # the newest backup is restored beside and compared, each week
# How many days, weeks and months back there is a backup; of the last two days, every one.
backup_keep_daily = 7
backup_keep_weekly = 4
backup_keep_monthly = 6
backup_timeout = "60min"  # for restic to store a backup, to read it back, to check or to prune
backup_list_timeout = "5min"  # for it to look into the repository; then it is ended

lock_wait = "5s"  # how long to wait for another deploy to end before giving up
backup_wait = "10min"  # and how long for a backup or a drill, which end by themselves
migration_lock_warning = "1s"  # a pending migration that locks a table for longer is warned of
migration_lock_limit = None  # and refused, from this on; None: never for that alone
image_pull_timeout = "10min"  # for each image; then the deploy ends, and nothing is changed
retry_bad_release = False  # a release that was taken back is not deployed again as it is
releases_kept = 5
release = None  # deploys/rollback.py alone: which kept release; None: what served before
restore_dump = False  # deploys/rollback.py alone: over a migration, with the data of before it
# deploys/restore.py: an id of koprogo backups, or latest, before, koprogo_before_…, drop_old
backup = None
over_data = False  # deploys/recover.py alone: also on a host that holds data
upgrade = None  # deploys/postgres_upgrade.py alone: back, back_anyway, drop_old
plan = None  # deploys/full.py alone: a file of koprogo plan --out, carried out as it is
reason = None  # why this run, for the journal: --data reason="…"; None: the newest commit's subject
