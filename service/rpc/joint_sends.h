// JointSends: what one thread sends in a row goes to the network in few packets.
//
// gRPC makes a system call for each message of each stream, and TCP a packet of each call: for an
// audience most of what the kernel does. Within a scope the program's own sendmsg (gated_calls.cc)
// says "more follows" (MSG_MORE) from a connection's second message on, so that the kernel puts
// messages of one connection together.
//
//   stream 1 of A ──► packet        stream 2 of A ─┐             stream 3 of A ─┐
//   stream 1 of B ──► packet                       └─ held ────────────────────┴─► flush: packet
//
// Whoever is the only one on its connection waits for nobody, and nobody's first message does.
//
// From message kJointOneByOne on, a connection that epoll knows is put off: gRPC hears that
// the socket takes no more (EAGAIN), and adds up what the connection's streams have to send until
// epoll reports it, which a flush asks for. Then it writes all of that at once, and what it does
// for each write is done once as well. While it waits for that, gRPC wants a thread of its own to
// poll; so this is done only where SolePoller keeps that away. Between two turns of an audience it
// stays put off, though epoll may report it for what its client sends.
//
// Who owns it: the door's polling thread, which has a scope for each event. Threads: that of its
// scopes; what others send meanwhile goes out at once, and takes along what is held of that
// connection. Always true: when a scope has ended nothing is held, unless more of the same is to be
// sent in one of the next (ExpectMore). Failure: none; the kernel has the bytes, and a descriptor
// that was closed meanwhile, or is no TCP connection, has nothing to be flushed. What is put off is
// gRPC's, one message for each stream at most, as while a slow client's socket is full.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace statehouse {

// So many messages are held together; the first of them for as long as it takes to write them.
inline constexpr size_t kJointSendsMax = 256;
// A connection is put off at its message of that number. It costs two system calls and a wake-up of
// gRPC's thread, so few messages are better held.
inline constexpr uint32_t kJointOneByOne = 5;
// For so long the end of a scope may leave something held; longer where the next takes longer.
inline constexpr uint64_t kHeldNsMax = 500'000;

class JointSends final {
 public:
  JointSends() = default;
  ~JointSends() { Flush(); }
  JointSends(const JointSends&) = delete;
  JointSends& operator=(const JointSends&) = delete;

  class Scope final {
   public:
    // REQUIRES: no scope of this thread is open.
    explicit Scope(JointSends* sends);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

  // Whether the scope that the thread is in sends to an audience that has its next turn in one of
  // the next scopes: until then its end flushes nothing that has not been held for kHeldNsMax.
  // Nothing outside of a scope.
  static void ExpectMore(bool more);
  // How often a connection was put off. For tests.
  static uint64_t put_offs();
  // For gated_calls.cc, which is what the program calls instead of the kernel's.
  static ssize_t Send(int fd, const msghdr* message, int flags);

 private:
  // What a descriptor was used for since the last flush.
  struct Use {
    uint64_t round = 0;
    uint32_t messages = 1;
    bool is_held = false;
    bool is_put_off = false;
  };
  ssize_t Join(int fd, const msghdr* message, int flags);
  // Whether gRPC is to wait with the message, and all that follows.
  bool PutOff(int fd, Use* use);
  bool IsPutOff(int fd) const;
  void BeginToHold();
  void Flush();
  void EndScope();

  bool expects_more_ = false;
  uint64_t held_since_ns_ = 0;  // If anything is.
  uint64_t round_ = 1;          // Of flushes.
  size_t joined_ = 0;
  std::vector<Use> uses_;     // By descriptor.
  std::vector<int> held_;     // Of which something is held.
  std::vector<int> put_off_;  // To be reported.
};

}  // namespace statehouse
