//! The series of what exchanges and filter calls use: time to the end, bytes, processor time,
//! memory, instances.
//!
//! Like `series`, this file looks a series up once and keeps it. This module does not know: what an
//! exchange or a call does.

use std::cell::RefCell;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::buckets::{Buckets, TracedHistogram, observe};
use super::labels::{
    CAPABILITIES, CapabilityLabels, FilterVersionLabels, InstanceLabels, ListenerRequestLabels, RouteClassLabels,
    RouteLabels, STATUS_CLASSES, TraceLabels, status_class,
};
use super::series_owners::Owner;
use witgate_http::body::Traffic;
use witgate_runtime::call::CallStats;

/// The families of a route's usage.
#[derive(Clone)]
pub(super) struct RouteFamilies {
    pub(super) seconds: Family<RouteClassLabels, TracedHistogram, Buckets>,
    pub(super) in_flight: Family<RouteLabels, Gauge>,
    pub(super) received: Family<RouteLabels, Counter>,
    pub(super) sent: Family<RouteLabels, Counter>,
}

/// What the exchanges of one route use.
pub(super) struct RouteUsage {
    families: RouteFamilies,
    owner: Arc<Owner>,
    series: OnceLock<RouteSeries>,
    seconds: [OnceLock<TracedHistogram>; STATUS_CLASSES.len()],
}

struct RouteSeries {
    in_flight: Gauge,
    received: Counter,
    sent: Counter,
}

impl RouteUsage {
    pub(super) fn new(families: RouteFamilies, owner: Arc<Owner>) -> Self {
        Self { families, owner, series: OnceLock::new(), seconds: Default::default() }
    }

    /// An exchange of the route begins.
    pub(super) fn begin(&self, route: &Arc<str>) {
        self.series(route).in_flight.inc();
    }

    /// An exchange goes on to another route.
    pub(super) fn leave(&self, route: &Arc<str>) {
        self.series(route).in_flight.dec();
    }

    /// An exchange of the route ended. It has no status if the client left before the response.
    pub(super) fn end(
        &self,
        route: &Arc<str>,
        status: Option<u16>,
        (seconds, trace): (f64, Option<TraceLabels>),
        traffic: &Traffic,
    ) {
        let series = self.series(route);
        series.in_flight.dec();
        series.received.inc_by(traffic.received());
        series.sent.inc_by(traffic.sent());
        observe(self.duration(route, status_class(status)), seconds, trace);
    }

    /// Creates the series of failures, so that the first failure is an increase.
    pub(super) fn begin_failures(&self, route: &Arc<str>) {
        self.duration(route, status_class(Some(500)));
    }

    fn duration(&self, route: &Arc<str>, class: usize) -> &TracedHistogram {
        self.seconds[class].get_or_init(|| {
            let labels = RouteClassLabels { route: route.clone(), class: STATUS_CLASSES[class] };
            self.owner.series(&self.families.seconds, &labels)
        })
    }

    fn series(&self, route: &Arc<str>) -> &RouteSeries {
        self.series.get_or_init(|| {
            let labels = RouteLabels { route: route.clone() };
            RouteSeries {
                in_flight: self.owner.series(&self.families.in_flight, &labels),
                received: self.owner.series(&self.families.received, &labels),
                sent: self.owner.series(&self.families.sent, &labels),
            }
        })
    }
}

/// The families of a filter's usage.
#[derive(Clone)]
pub(super) struct FilterFamilies {
    pub(super) busy: Family<FilterVersionLabels, Counter<f64, AtomicU64>>,
    pub(super) memory_peak: Family<FilterVersionLabels, Gauge>,
    pub(super) in_flight: Family<FilterVersionLabels, Gauge>,
    pub(super) instances: Family<InstanceLabels, Counter>,
    pub(super) capabilities: Family<CapabilityLabels, Counter>,
}

/// What the calls of one version of a filter use.
pub(super) struct FilterUsage {
    families: FilterFamilies,
    owner: Arc<Owner>,
    series: OnceLock<FilterSeries>,
}

struct FilterSeries {
    busy: Counter<f64, AtomicU64>,
    memory_peak: Gauge,
    in_flight: Gauge,
    /// A new one, and an idle one.
    instances: [Counter; 2],
    /// For each of `CAPABILITIES`: calls that succeeded, and calls that failed.
    capabilities: [OnceLock<[Counter; 2]>; CAPABILITIES.len()],
}

/// A call that runs. Its drop ends it, also if the client leaves in the middle.
pub struct RunningCall<'a>(&'a Gauge);

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl FilterUsage {
    pub(super) fn new(families: FilterFamilies, owner: Arc<Owner>) -> Self {
        Self { families, owner, series: OnceLock::new() }
    }

    pub(super) fn begin(&self, filter: &Arc<str>, version: &Arc<str>) -> RunningCall<'_> {
        let series = self.series(filter, version);
        series.in_flight.inc();
        RunningCall(&series.in_flight)
    }

    pub(super) fn count(&self, filter: &Arc<str>, version: &Arc<str>, stats: &CallStats) {
        let series = self.series(filter, version);
        series.busy.inc_by(stats.busy.as_secs_f64());
        series.instances[usize::from(stats.is_reused)].inc();
        let memory = i64::try_from(stats.memory_bytes).unwrap_or(i64::MAX);
        for (index, calls) in stats.capability_calls.iter().enumerate().filter(|(_, calls)| calls.any()) {
            let counters = series.capabilities[index].get_or_init(|| self.capability(filter, version, index));
            counters[0].inc_by(calls.ok.into());
            counters[1].inc_by(calls.failed.into());
        }
        // Two threads may race. The larger value wins at the next call.
        if memory > series.memory_peak.get() {
            series.memory_peak.set(memory);
        }
    }

    fn series(&self, filter: &Arc<str>, version: &Arc<str>) -> &FilterSeries {
        self.series.get_or_init(|| {
            let labels = FilterVersionLabels { filter: filter.clone(), version: version.clone() };
            let instances = ["new", "idle"].map(|instance| {
                let labels = InstanceLabels { filter: filter.clone(), version: version.clone(), instance };
                self.owner.series(&self.families.instances, &labels)
            });
            FilterSeries {
                busy: self.owner.series(&self.families.busy, &labels),
                memory_peak: self.owner.series(&self.families.memory_peak, &labels),
                in_flight: self.owner.series(&self.families.in_flight, &labels),
                instances,
                capabilities: Default::default(),
            }
        })
    }

    fn capability(&self, filter: &Arc<str>, version: &Arc<str>, index: usize) -> [Counter; 2] {
        ["ok", "error"].map(|result| {
            let capability = CAPABILITIES[index];
            let labels = CapabilityLabels { filter: filter.clone(), version: version.clone(), capability, result };
            self.owner.series(&self.families.capabilities, &labels)
        })
    }
}

/// Counts an exchange of a listener. Each thread keeps the series of its few listeners.
pub(super) fn count_of_listener(family: &Family<ListenerRequestLabels, Counter>, listener: &str, status: Option<u16>) {
    type OwnCounters = Vec<(Arc<str>, [Counter; STATUS_CLASSES.len()])>;
    thread_local! {
        static OWN: RefCell<OwnCounters> = const { RefCell::new(vec![]) };
    }
    let class = status_class(status);
    OWN.with_borrow_mut(|own| {
        if let Some((_, counters)) = own.iter().find(|(name, _)| **name == *listener) {
            counters[class].inc();
            return;
        }
        let name: Arc<str> = listener.into();
        let counters = STATUS_CLASSES
            .map(|class| family.get_or_create_owned(&ListenerRequestLabels { listener: name.clone(), class }));
        counters[class].inc();
        own.push((name, counters));
    });
}
