//! Assembly in the one right order, signals, drain.
//!
//! Not pure. Order: sockets that were handed over, log, state directory, sockets (TCP first, without SO_REUSEPORT: a
//! second instance ends here), lock beside the control socket, privileges, cache and policy, the driver, workers,
//! listeners, and then what goes on beside, the supervisor's watchdog among it. What is
//! in the way of serving is fatal and said in one line with what to do ([`Fatal`]); what is not (an admin port, the
//! control socket, a state directory) is a warning and tried again.
//!
//! At SIGTERM: ready goes off, answers go on for `listen.drain` and until the last snapshot is written (at most 5 s),
//! sockets are read empty, exit 0. At SIGHUP: the policy is swapped and evidence kept; a bad file is refused whole, and
//! keys that need a restart are named.
//!
//! A worker or driver that panics ends the process: a supervisor starts a whole one, where half a one would answer
//! some clients and not others.

mod changes;
mod freezing;
mod keeping;
pub mod policy;
mod report;
mod user;
mod worker;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cache::Cache;
use crate::cache::freshness::Freeze;
use crate::cache::front::Front;
use crate::cache::key::Keys;
use crate::cache::store::MokaStore;
use crate::clock::{self, Moment, WallTime};
use crate::config::{Config, Warning};
use crate::driver::Driver;
use crate::limits::MISS_QUEUE;
use crate::listen::alone::Alone;
use crate::listen::handed::Handed;
use crate::listen::seats::TcpLimits;
use crate::listen::tcp::Connections;
use crate::listen::udp::Readings;
use crate::listen::{self, socket, tcp, udp};
use crate::observe::admin::{self, Admin};
use crate::observe::control::{self, server as control_server};
use crate::observe::event::{Event, report};
use crate::observe::history::History;
use crate::observe::liveness::OwnListeners;
use crate::observe::log::{self, Log};
use crate::observe::metrics::Meters;
use crate::observe::query_log::QueryLog;
use crate::observe::status::Gather;
use crate::upkeep::canary::Canaries;
use crate::upkeep::freeze::TiersInUse;
use crate::upkeep::network;
use crate::upkeep::snapshot::{self, Snapshotter};
use crate::upkeep::source::{ConfigSource, Loaded, Refused, shown_path, state_directory};
use crate::upkeep::{probe, supervisor, system};
use policy::{InForce, Placed, Surroundings};
use user::Servant;
use worker::Worker;

/// The store's put-off work, while there is any.
const STORE_EVERY: Duration = Duration::from_millis(200);
/// And while there is none: an idle process wakes as seldom as it can.
const STORE_RESTS: Duration = Duration::from_secs(1);
/// Emptying the sockets at the end.
const EMPTYING: Duration = Duration::from_secs(1);

/// What the command line found out before anything runs.
pub struct Start {
    /// Where the configuration comes from.
    pub source: ConfigSource,
    /// The configuration, accepted.
    pub loaded: Loaded,
    /// Why the file itself was refused, where its last accepted copy is used.
    pub refused: Option<Refused>,
    /// Is the file applied when it changes?
    pub watch: bool,
}

/// Why the process cannot serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// Exit code: 1 the configuration, 3 the system.
    pub exit: u8,
    /// One line: what, where, what to do.
    pub message: String,
}

impl Fatal {
    fn system(message: impl Into<String>) -> Self {
        Self { exit: 3, message: message.into() }
    }
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fatal {}

/// The running process, for those who ask about it or change it.
pub(crate) struct Running {
    source: ConfigSource,
    started: Moment,
    /// The same by the wall clock: one number for the life of the process, as a restart is told by its change.
    started_wall: WallTime,
    state: Option<PathBuf>,
    listening: Vec<SocketAddr>,
    socket_remarks: Vec<String>,
    cache: Arc<Cache>,
    canaries: Canaries,
    driver: Arc<Driver>,
    in_force: Arc<InForce>,
    stamps: AtomicU32,
    /// Held over a whole reload: of two at once, by a signal and by command, the policy of one and the cells of the
    /// other could come into force.
    reloading: Mutex<()>,
    changing: Mutex<Changing>,
    /// Held over a whole change of it, files among it: a freeze that is taken back must not come back.
    frozen: Mutex<Frozen>,
    ready: Arc<AtomicBool>,
    readings: Mutex<Option<Readings>>,
    connections: Mutex<Option<Connections>>,
    log: Arc<Log>,
    query_log: Arc<QueryLog>,
    meters: Arc<Meters>,
    history: History,
    /// The machine's name.
    host: String,
    /// None where there is no state directory.
    snapshotter: Option<Arc<Snapshotter>>,
}

/// The freeze in force, and the tiers that were in use when it was kept last.
#[derive(Default)]
struct Frozen {
    freeze: Option<Freeze>,
    tiers: TiersInUse,
}

/// What reloads replace.
pub(crate) struct Changing {
    loaded: Loaded,
    /// The configuration that the process started with, for what only a restart changes.
    began_with: Config,
    around: Surroundings,
    placed: Vec<Placed>,
    remarks: Vec<String>,
    last_reload_ok: bool,
}

/// Serves until a signal ends it.
///
/// # Errors
///
/// What is in the way of serving. Nothing has been answered then.
pub fn run(start: Start) -> Result<(), Fatal> {
    let Start { source, loaded, refused, watch } = start;
    let mut handed = Handed::take();
    let servant = Servant::find(&loaded.config.user)?;
    let config = loaded.config.clone();
    let log = Arc::new(log::start(&config.log).map_err(|e| Fatal::system(format!("logs cannot be written: {e}")))?);
    abort_on_panic();
    let state = state_directory(&config.state, servant.is_some()).unwrap_or_else(|reason| {
        report(Event::StateUnavailable { reason });
        None
    });
    say_configuration(&loaded, refused.as_ref());
    raise_descriptor_limit();

    supervisor::let_go(&socket::let_go(&mut handed, &config.listen));
    let mut sockets = socket::open(&config.listen, handed).map_err(|e| Fatal::system(e.to_string()))?;
    let control_place = config.admin.socket.clone();
    let alone = be_alone(control_place.as_deref())?;
    supervisor::keep(std::mem::take(&mut sockets.opened));
    if let Some(servant) = servant {
        let places = [state.as_deref(), alone.as_ref().map(Alone::directory)];
        for place in places.into_iter().flatten() {
            if let Err(e) = servant.give(place) {
                report(Event::StateUnavailable { reason: format!("{}: {e}", place.display()) });
            }
        }
        servant.become_it()?;
        if let Some(file) = loaded.path.as_ref().filter(|path| std::fs::File::open(path).is_err()) {
            let remark = format!("{} may not read {}: a reload will be refused", servant.name(), file.display());
            report(Event::ConfigRemark { remark });
        }
    }
    let listening = sockets.listening();
    for remark in &sockets.remarks {
        report(Event::ConfigRemark { remark: remark.clone() });
    }

    let runtime = Runtime::new().map_err(|e| Fatal::system(format!("no threads for the runtime: {e}")))?;
    // Before the first answer: who sees that it answers may signal it at once.
    let signals = {
        let _within = runtime.enter();
        Signals::listen().map_err(|e| Fatal::system(format!("signals cannot be listened for: {e}")))?
    };
    let meters = Arc::new(Meters::default());
    let coming =
        state.as_ref().filter(|_| config.cache.snapshot).map_or(0, |directory| snapshot::entries_in(directory));
    let store = Arc::new(MokaStore::with_room(config.cache.max_bytes, coming));
    let cache = Arc::new(Cache::new(store, Keys::new(rand::random())));
    cache.guards().set(&config.guards);
    let query_log = Arc::new(QueryLog::default());
    query_log.apply(&config.query_log);
    let driver = Arc::new(Driver::new(cache.clone(), meters.shared(), query_log.clone()));

    let around = Surroundings::look(&config, state.as_deref(), &listening);
    say_surroundings(&around);
    let stamps = AtomicU32::new(1);
    let (first_policy, placed, remarks) = policy::build(&config, &around, &[], None, &stamps, clock::now());
    remarks.iter().for_each(|remark| report(Event::HostsRemark { remark: remark.clone() }));
    let in_force = Arc::new(InForce::new(first_policy));

    let snapshotter = state.as_ref().map(|directory| {
        let (directory, cache) = (directory.clone(), cache.clone());
        Arc::new(Snapshotter::new(directory, snapshot::machine(), cache, config.cache.max_bytes))
    });
    let running = Arc::new(Running {
        source,
        started: clock::now(),
        started_wall: clock::wall(),
        state,
        listening: listening.clone(),
        socket_remarks: sockets.remarks.clone(),
        cache: cache.clone(),
        canaries: Canaries::new(&listening),
        driver: driver.clone(),
        in_force: in_force.clone(),
        stamps,
        reloading: Mutex::new(()),
        changing: Mutex::new(Changing {
            began_with: config.clone(),
            loaded,
            around,
            placed: Vec::new(),
            remarks,
            last_reload_ok: refused.is_none(),
        }),
        frozen: Mutex::default(),
        ready: Arc::new(AtomicBool::new(false)),
        readings: Mutex::new(None),
        connections: Mutex::new(None),
        log,
        query_log: query_log.clone(),
        meters: meters.clone(),
        history: History::new(clock::now()),
        host: std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| String::new(), |h| h.trim().into()),
        snapshotter,
    });
    running.place(placed, &runtime);
    running.keep_accepted();
    running.take_up_freeze();

    let (queue, from_workers) = mpsc::channel(MISS_QUEUE);
    runtime.spawn(driver.clone().run(from_workers));
    let workers = listen::workers(config.listen.workers);
    let way_in = |front, tally| {
        let (in_force, cache, queue) = (in_force.clone(), cache.clone(), queue.clone());
        Worker::new(in_force, cache, front, tally, queue, driver.clone(), query_log.clone())
    };
    let udp_workers =
        udp::start(sockets.udp, workers, |_| way_in(Some(Front::new(config.cache.max_bytes, workers)), meters.own()))
            .map_err(|e| Fatal::system(format!("no threads for UDP workers: {e}")))?;
    let tcp_listeners = {
        let (meters, in_force, cache) = (meters.clone(), in_force.clone(), cache.clone());
        let (queue, driver, log) = (queue.clone(), driver.clone(), query_log.clone());
        tcp::start(runtime.handle(), sockets.tcp, TcpLimits::from(&config.listen), move || {
            let (in_force, cache, queue) = (in_force.clone(), cache.clone(), queue.clone());
            Worker::new(in_force, cache, None, meters.shared(), queue, driver.clone(), log.clone())
        })
        .map_err(|e| Fatal::system(format!("TCP cannot be listened for: {e}")))?
    };
    *lock(&running.readings) = Some(udp_workers.readings());
    *lock(&running.connections) = Some(tcp_listeners.connections());
    running.ready.store(true, Ordering::Relaxed);
    running.say_started(workers);
    running.keep_cache();

    runtime.block_on(async {
        running.spawn_beside(&config, control_place, &meters, watch);
        tokio::spawn(running.clone().reload_at_hangup(signals.hangup));
        until_told_to_end(signals.terminate, signals.interrupt).await;
        running.ready.store(false, Ordering::Relaxed);
        supervisor::stopping();
        report(Event::Draining { grace: config.listen.drain });
        let last = running.clone();
        // TCP ends early where no connection is open; UDP has the whole time. The last snapshot is written meanwhile.
        let _ = tokio::join!(
            tcp_listeners.drain(config.listen.drain),
            tokio::time::sleep(config.listen.drain),
            tokio::task::spawn_blocking(move || last.end_keeping())
        );
        // Stopping blocks; the runtime's other threads go on answering what is still open.
        let _ = tokio::task::spawn_blocking(move || udp_workers.stop(EMPTYING)).await;
        driver.until_answered(EMPTYING).await;
        let _ = tokio::task::spawn_blocking(move || query_log.finish()).await;
    });
    report(Event::Ended { uptime: clock::now().since(running.started) });
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(())
}

//------------ Before anything is served -----------------------------------------------------------------------------

fn abort_on_panic() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        told(info);
        std::process::abort();
    }));
}

fn say_configuration(loaded: &Loaded, refused: Option<&Refused>) {
    let file = PathBuf::from(shown_path(loaded.path.as_deref()));
    if let Some(refused) = refused {
        report(Event::ConfigFallback { file, reason: refused.in_one_line() });
    }
    for warning in &loaded.warnings {
        report(Event::ConfigRemark { remark: remark_of(loaded, warning) });
    }
}

fn remark_of(loaded: &Loaded, warning: &Warning) -> String {
    warning.shown(&shown_path(loaded.path.as_deref())).to_string()
}

fn say_surroundings(around: &Surroundings) {
    for remark in &around.remarks {
        report(Event::HostsRemark { remark: remark.clone() });
    }
    for remark in &around.system.remarks {
        report(Event::SystemRemark { remark: remark.clone() });
    }
    if around.system.from == system::Origin::Remembered {
        report(Event::SystemUpstreamsRemembered { servers: around.system.servers.clone() });
    }
}

/// One socket for each question that is out, one for each connection: the soft limit is often 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, what does not fit fails as a limit of our own.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Takes the lock beside the control socket, in the first place that can be had. Not having any is a warning.
fn be_alone(control_place: Option<&Path>) -> Result<Option<Alone>, Fatal> {
    let places = control_place.map_or_else(control::default_places, |place| vec![place.to_owned()]);
    for directory in places.iter().filter_map(|place| place.parent()) {
        if control_server::make_directory(directory).is_err() {
            continue;
        }
        match Alone::take(directory) {
            Ok(alone) => return Ok(Some(alone)),
            Err(e @ socket::OpenError::AnotherInstance { .. }) => return Err(Fatal::system(e.to_string())),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// The signals that mean something.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn until_told_to_end(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

//------------ Running -----------------------------------------------------------------------------------------------

impl Running {
    fn changing(&self) -> MutexGuard<'_, Changing> {
        lock(&self.changing)
    }

    /// Puts cells in force: the driver asks through them, their probes begin, those before them end.
    fn place(&self, placed: Vec<Placed>, runtime: &impl Spawn) {
        let mut changing = self.changing();
        let cells: Vec<_> = placed.iter().map(|p| p.cell.clone()).collect();
        self.driver.set_cells(&cells, changing.loaded.config.admit.in_flight_per_client);
        for old in &changing.placed {
            old.retired.store(true, Ordering::Relaxed);
        }
        let freeze = self.cache.freeze(clock::now());
        for new in &placed {
            new.cell.with(|group| group.set_freeze(freeze));
            runtime.spawn_task(probe::run(new.cell.clone(), new.retired.clone()));
        }
        changing.placed = placed;
    }

    fn keep_accepted(&self) {
        let Some(state) = &self.state else { return };
        let kept = self.changing().loaded.keep(state);
        if let Err(e) = kept {
            report(Event::StateUnavailable { reason: format!("{}: {e}", state.display()) });
        }
    }

    /// Begins to read the snapshot of the cache, and then to write one again and again.
    fn keep_cache(self: &Arc<Self>) {
        let Some(snapshotter) = self.snapshotter.clone() else { return };
        let running = self.clone();
        let thread = std::thread::Builder::new().name("snapshot".into());
        if let Err(e) = thread.spawn(move || snapshotter.run(&*running)) {
            report(Event::StateUnavailable { reason: format!("no thread for snapshots: {e}") });
        }
    }

    /// Writes the last snapshot. Blocks.
    fn end_keeping(&self) {
        if let Some(snapshotter) = &self.snapshotter {
            snapshotter.finish(self);
        }
    }

    fn say_started(&self, workers: usize) {
        report(Event::Started { version: env!("CARGO_PKG_VERSION").to_owned(), workers });
        for address in &self.listening {
            report(Event::Listening { address: *address });
        }
        for placed in &self.changing().placed {
            placed.cell.with(|group| {
                let servers: Vec<String> = group.servers().iter().map(|s| s.settings.name.clone()).collect();
                let group = placed.name.clone();
                report(if servers.is_empty() {
                    Event::NoUpstreams { group }
                } else {
                    Event::UpstreamsChosen { group, servers }
                });
            });
        }
        if let Some(address) = self.listening.first() {
            report(Event::AskAt { address: *address });
        }
    }

    fn spawn_beside(self: &Arc<Self>, config: &Config, control: Option<PathBuf>, meters: &Arc<Meters>, watch: bool) {
        let heartbeats = {
            let running = self.clone();
            move || {
                let now = clock::now();
                lock(&running.readings)
                    .iter()
                    .flat_map(|r| r.beats().map(|b| now.since(b)).collect::<Vec<_>>())
                    .collect()
            }
        };
        // An address that is not there yet cannot be asked; that is no fault of this process.
        let running = self.clone();
        let addresses = move || {
            let changing = running.changing();
            let here = |at: &&SocketAddr| report::is_here(at.ip(), &changing.around.own);
            running.listening.iter().filter(here).copied().collect()
        };
        let running = self.clone();
        let is_tcp_full = move || lock(&running.connections).as_ref().is_some_and(Connections::are_all);
        let liveness = Arc::new(OwnListeners::new(addresses, heartbeats, is_tcp_full));
        let running = self.clone();
        tokio::spawn(supervisor::run(liveness.clone(), self.ready.clone(), move || {
            running.gather().summary.sentence
        }));
        if let Some(address) = config.admin.listen {
            let admin =
                Arc::new(Admin { gather: self.clone(), meters: meters.clone(), liveness, ready: self.ready.clone() });
            tokio::spawn(admin::serve(address, config.admin.allow.clone(), admin));
        }
        tokio::spawn(control_server::serve(control, self.clone(), move |change| {
            if let Err(reason) = change {
                report(Event::ControlUnavailable { reason: reason.to_owned() });
            }
        }));
        let running = self.clone();
        tokio::spawn(async move {
            let mut seen = running.cache.census();
            loop {
                running.cache.upkeep();
                let now = running.cache.census();
                let pause = if now == seen { STORE_RESTS } else { STORE_EVERY };
                seen = now;
                tokio::time::sleep(pause).await;
            }
        });
        self.canaries.place(&config.canaries);
        tokio::spawn(self.clone().keep_history());
        tokio::spawn(self.clone().look_around(watch));
        let running = self.clone();
        tokio::spawn(network::run(move |change| running.on_network_change(change)));
    }
}

/// Where a task can be put: the runtime before it runs, its handle within.
trait Spawn {
    fn spawn_task(&self, task: impl Future<Output = ()> + Send + 'static);
}

impl Spawn for Runtime {
    fn spawn_task(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(task);
    }
}

impl Spawn for tokio::runtime::Handle {
    fn spawn_task(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(task);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
