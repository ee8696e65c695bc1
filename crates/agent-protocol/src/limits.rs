//! Every bound of the protocol, in one place, with the reason for its value. Both ends take them from here, so that no side
//! can send what the other refuses.

/// Longest frame in bytes, with its record separator and line feed. A virtio-serial port takes at most 32 768 bytes in one
/// `write(2)`, so a frame of this size is queued whole or not at all; a longer one could be cut in half by a lost client.
pub const MAX_FRAME: usize = 32_768;

/// Longest frame that is accepted before a hello: enough for every greeting, too little to make a stranger costly.
pub const MAX_FRAME_BEFORE_HELLO: usize = 4_096;

/// Smallest `max_frame` that a peer may offer: below it a reply with script output might not fit.
pub const MIN_FRAME: usize = MAX_FRAME_BEFORE_HELLO;

/// Raw bytes in one chunk: its base64 (four thirds) and its envelope stay below [`MAX_FRAME`].
pub const CHUNK_RAW_MAX: usize = 22 * 1_024;

/// Longest reassembled body in bytes: [`ACTIVATION_TEXT_MAX`] with every character escaped, and the fields around it.
pub const BODY_MAX: usize = 2 * ACTIVATION_TEXT_MAX + 32 * 1_024;

/// Bodies that may be under way in pieces at the same time; together with [`BODY_MAX`] it bounds the agent's memory.
pub const TRANSFERS_MAX: usize = 2;

/// Bytes of environment and scripts together in one activation.
pub const ACTIVATION_TEXT_MAX: usize = 256 * 1_024;

/// Variables in one activation's environment.
pub const ENVIRONMENT_VARIABLES_MAX: usize = 1_024;

/// Bytes of one environment value: the kernel's limit for a single string of a new program's environment is 128 KiB, and
/// login shells become slow far below that.
pub const ENVIRONMENT_VALUE_MAX: usize = 16 * 1_024;

/// Longest time that a script may be given, in milliseconds (one hour).
pub const SCRIPT_TIMEOUT_MAX_MS: u64 = 3_600_000;

/// Bytes of a script's output that the agent keeps: the end, since that is where the error is.
pub const SCRIPT_OUTPUT_KEEP: usize = 64 * 1_024;

/// Bytes of a script's output that a reply carries. Two outputs, each character escaped, and the rest fit [`MAX_FRAME`].
pub const REPLY_OUTPUT_MAX: usize = 6 * 1_024;

/// Time between SIGTERM and SIGKILL for a script that overran, in milliseconds.
pub const SCRIPT_KILL_GRACE_MS: u64 = 5_000;

/// Commands in each list of a persona's table.
pub const TABLE_COMMANDS_MAX: usize = 1_024;

/// Bytes of a command's name: the longest name of a file.
pub const COMMAND_NAME_MAX: usize = 255;

/// Bytes of the path of a program or a directory: the kernel's own bound without the zero byte at the end.
pub const COMMAND_PATH_MAX: usize = 4_095;

/// Words of a command, with the program.
pub const COMMAND_WORDS_MAX: usize = 1_024;

/// Bytes of a command's words and variables together: room for a program text as one word, and little for 64 of them.
pub const COMMAND_TEXT_MAX: usize = 32 * 1_024;

/// Commands that the agent runs at the same time.
pub const COMMAND_RUNS_MAX: usize = 4;

/// Bytes of a command's output, both streams together, that are sent; the rest is read and thrown away.
pub const COMMAND_OUTPUT_MAX: u64 = 4 * 1_024 * 1_024;

/// Raw bytes in one piece of output, as in a chunk.
pub const OUTPUT_RAW_MAX: usize = CHUNK_RAW_MAX;

/// Bytes of output that wait in the agent for a host that does not read; commands wait then. With what the port itself holds
/// (700 KiB) it stays below what a host that was held up takes at once.
pub const OUTPUT_WINDOW: usize = 128 * 1_024;

/// Bytes of output that all commands together send in a second: in base64 two thirds of what a host takes of a guest.
pub const OUTPUT_RATE: i64 = 512 * 1_024;

/// What a piece of output counts at least in [`OUTPUT_RATE`], in bytes, so that short pieces stay far below the frames that
/// a host takes in a second.
pub const OUTPUT_PIECE_COST: i64 = 8 * 1_024;

/// Time between SIGTERM and SIGKILL for a command that overran, in milliseconds.
pub const COMMAND_KILL_GRACE_MS: u64 = 5_000;

/// Settings in an activation, beside its packages.
pub const SETTINGS_MAX: usize = 256;

/// Packages in an activation.
pub const PACKAGES_MAX: usize = 512;

/// Longest time in milliseconds that an activation gives to the guest's package manager (half an hour): what has not been
/// fetched and unpacked by then is undone.
pub const PACKAGES_TIME_MS: u64 = 1_800_000;

/// Bytes of the value of one setting.
pub const SETTING_VALUE_MAX: usize = 1_024;

/// Bytes of one value of a setting that a plugin of the guest may know.
pub const OTHER_VALUE_MAX: usize = 4_096;

/// How long a plugin of the guest may take to say how a setting is or will be.
pub const PLUGIN_LOOK_MS: u64 = 10_000;

/// How long a plugin of the guest may take to bring a setting about, or to undo it.
pub const PLUGIN_DO_MS: u64 = 60_000;

/// Bytes of one answer of a plugin of the guest.
pub const PLUGIN_ANSWER_MAX: usize = 16 * 1_024;

/// Bytes of what a plugin of the guest says of how a setting is.
pub const PLUGIN_STATE_MAX: usize = 4_096;

/// Bytes of the reason for what came of one setting.
pub const SETTING_REASON_MAX: usize = 256;

/// Bytes of what an answer says of settings; with two scripts' outputs in JSON it still fits a frame.
pub const SETTINGS_REPLY_MAX: usize = 12 * 1_024;

/// Hooks of one occasion that the agent runs; the others are left out, with a line in its log.
pub const HOOKS_MAX: usize = 64;

/// What of a request's `ttl_ms` hooks leave for the way of the answer, in milliseconds.
pub const HOOK_MARGIN_MS: u64 = 1_000;

/// Time between SIGTERM and SIGKILL for a hook that overran, in milliseconds: within [`HOOK_MARGIN_MS`].
pub const HOOK_KILL_GRACE_MS: u64 = 300;

/// Occasions for which hooks may run at the same time: one for each resource.
pub const HOOK_RUNS_MAX: usize = 2;

/// Longest wait in milliseconds that a guest can ask for after it refused (one hour).
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// Shortest interval in milliseconds between two needs of a guest. The host drops those that come at less than half of it.
pub const NEED_INTERVAL_MS: u64 = 2_000;

/// Bytes of the reason of a need.
pub const NEED_REASON_MAX: usize = 128;

/// Interval in milliseconds at which a guest may ask about personas once more; the host drops those at less than half of it.
pub const ASK_INTERVAL_MS: u64 = 1_000;

/// Asks that may come at once; the host takes twice as many.
pub const ASKS_BURST: u64 = 8;

/// Personas to choose from in one answer.
pub const OFFERS_MAX: usize = 64;

/// Changes that are named of one of them.
pub const OFFER_LINES_MAX: usize = 100;

/// Bytes of a value in a change.
pub const OFFER_VALUE_MAX: usize = 160;

/// Bytes of a persona's description, or of why it cannot be chosen, in an offer.
pub const DESCRIPTION_MAX: usize = 200;

/// Bytes of all offers in one answer; with the rest of the message it fits a frame.
pub const OFFERS_JSON_MAX: usize = 24 * 1_024;

/// Requests that may wait for their reply at the same time; the next one is refused as `busy`.
pub const IN_FLIGHT_MAX: usize = 64;

/// Activations among them that may wait: each can be as long as [`BODY_MAX`].
pub const ACTIVATIONS_WAITING_MAX: usize = 4;

/// Bytes of a persona's name, a digest, a version text or an identifier that comes from the other side.
pub const NAME_MAX: usize = 128;

/// Bytes of an error sentence.
pub const MESSAGE_MAX: usize = 512;

/// Names in a list of features.
pub const FEATURES_MAX: usize = 32;

/// Telemetry frames of credit that an agent can hold.
pub const CREDIT_MAX: u32 = 64;

/// Shortest interval of telemetry in milliseconds.
pub const TELEMETRY_MIN_MS: u64 = 100;

/// Silence after which the host pings, in milliseconds.
pub const HEARTBEAT_IDLE_MS: u64 = 10_000;

/// Pings without an answer after which the host closes and reopens the connection. That reconnect is what revives a port
/// whose guest-to-host direction died in a migration.
pub const HEARTBEAT_MISSES: u32 = 3;

/// CPUs that a report may speak of: twice what the largest x86 kernel configuration of the distributions allows.
pub const CPUS_MAX: u32 = 16_384;

/// Memory that a report may speak of, in KiB (64 TiB: 46 bits of physical address, the common limit of x86 hosts).
pub const MEMORY_MAX_KIB: u64 = 64 << 30;

/// Figures of applications in a report: enough for the rules of a persona, and a bound on what a guest can make a host keep.
pub const APP_FIGURES_MAX: usize = 64;

/// Bytes of the name of such a figure; with `guest.app.` before it rules can still name it.
pub const APP_NAME_MAX: usize = 128;

/// Largest value of one, either way: up to there an `f64` still counts tenths.
pub const APP_VALUE_MAX: f64 = 1e15;

/// Longest interval in milliseconds that one may be said at: three of them, half an hour, is the longest for which an old
/// value counts.
pub const APP_EVERY_MAX_MS: u64 = 600_000;

/// Records of a log that a report may count: a guest that writes a million a second needs thirty years for as many.
pub const RECORDS_MAX: u64 = 1_000_000_000_000_000;

/// Longest round trip that a report may speak of, in microseconds (a minute): no probe waits for so long.
pub const ROUND_TRIP_MAX_US: u64 = 60_000_000;

/// Processes that a report may speak of: the kernel's own ceiling for `pid_max` on 64-bit machines.
pub const PROCESSES_MAX: u64 = 4_194_304;

/// Rules that a guest evaluates.
pub const RULES_MAX: usize = 64;

/// Bytes of one of them, as text: the longest that the language prints is far below.
pub const RULE_TEXT_MAX: usize = 16 * 1_024;

/// Records of rules that an agent keeps for a host that is away; the oldest go, and are counted.
pub const RULE_RECORDS_KEPT: usize = 256;

/// Bytes of records in an answer, as JSON; a record that is longer goes alone.
pub const RULE_RECORDS_BYTES: usize = 16 * 1_024;

/// Actions of one record: as many as a rule can have.
pub const RULE_DEEDS_MAX: usize = 16;

/// Figures of one record: more than most rules look at.
pub const RULE_READINGS_MAX: usize = 16;

/// Bytes of an action or a figure's name in a record: the longest notice, and the words around it.
pub const RULE_ACTION_MAX: usize = 320;

/// Bytes of what is said of the outcome of an action.
pub const RULE_DETAIL_MAX: usize = 200;

/// Bytes of output in a record, over all of its actions.
pub const RULE_OUTPUT_MAX: usize = 1_024;

/// Actions of rules that run in a guest at a time.
pub const RULE_RUNS_MAX: usize = 4;

/// Longest time that a call of a feature's program may take, in milliseconds.
pub const FEATURE_TIME_MS: u64 = 30_000;
