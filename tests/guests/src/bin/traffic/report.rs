//! What came out, as one line of JSON.

use core::fmt;

use crate::options::Options;

/// Why it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// As many frames as asked for.
    Packets,
    /// As many seconds as asked for.
    Seconds,
    /// No frame came or went any more.
    Silence,
}

/// The figures.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) options: Options,
    pub(crate) end: End,
    /// Entries of a receive and of a transmit queue.
    pub(crate) rings: (u16, u16),
    pub(crate) event_index: bool,
    /// Feature bits.
    pub(crate) offloads: u64,
    /// Frames, without those of others where all are checked.
    pub(crate) packets: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// From the first frame to the last.
    pub(crate) cycles: u64,
    /// Notifications of the device, those before the first frame left out.
    pub(crate) kicks: u64,
    /// Turns of the loop that moved something, and those that did not.
    pub(crate) turns: (u64, u64),
    /// Checked and wrong.
    pub(crate) bad: u64,
    /// Checked and not ours.
    pub(crate) other: u64,
    /// Frames whose number was not one more than that of the one before.
    pub(crate) gaps: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let end = match self.end {
            End::Packets => "packets",
            End::Seconds => "seconds",
            End::Silence => "silence",
        };
        write!(
            f,
            "{{\"mode\":\"{}\",\"size\":{},\"pairs\":{},\"rx_ring\":{},\"tx_ring\":{},\"batch\":{},\"event_idx\":{},\"offloads\":{},",
            options.mode.name(),
            options.size,
            options.pairs,
            self.rings.0,
            self.rings.1,
            options.batch,
            self.event_index,
            self.offloads,
        )?;
        write!(
            f,
            "\"end\":\"{end}\",\"packets\":{},\"bytes\":{},\"cycles\":{},\"tsc_khz\":{},\"kicks\":{},",
            self.packets, self.bytes, self.cycles, options.kilohertz, self.kicks,
        )?;
        write!(
            f,
            "\"busy_turns\":{},\"idle_turns\":{},\"checked\":{},\"bad\":{},\"other\":{},\"gaps\":{}}}",
            self.turns.0, self.turns.1, options.check, self.bad, self.other, self.gaps,
        )
    }
}
