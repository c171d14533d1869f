// A memory barrier in every thread that may write, made by whoever waits: so that those who write
// need none of their own between their store and their look at a waiter's word.
#pragma once

namespace statehouse {

// This process takes part in the barriers of others from now on. Idempotent; children take part as
// their parent does. False where the kernel has no such barrier.
bool JoinBarriers();

// Every running thread of every process that joined has gone through a full barrier when this
// returns (some microseconds). False where the kernel has none: then waiters must look again by
// time.
bool BarrierEverywhere();

}  // namespace statehouse
