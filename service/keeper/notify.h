// The messages between daemon and keeper: systemd's notify protocol, so that systemd itself can be
// the keeper.
//
// A message is a run of lines "NAME=value". Those that count here:
//   FDSTORE=1 + FDNAME=x        keep the descriptors beside this message under the name x (an older
//                               one is replaced)
//   FDSTOREREMOVE=1 + FDNAME=x  forget x
//   READY=1                     the daemon serves
//   STOPPING=1                  the daemon has begun to stop on purpose
//   EXIT_STATUS=n               it is about to end with this code
//   BARRIER=1                   close the descriptor beside this message once everything before it
//                               is done; our keeper writes kBarrierKept or kBarrierLost first
//   X_STATEHOUSE_COMPLETE=1     everything that a new keeper must have has been stored
// Other lines are skipped. docs: sd_notify(3) of systemd 252.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/base/status.h"

namespace statehouse {

inline constexpr size_t kNotifyBytesMax = 4096;
inline constexpr size_t kDescriptorNameBytesMax = 255;

// What our keeper says at a barrier: everything since the last one was kept, or something was not.
// Silence is no success: a keeper without a free descriptor never gets the one to answer with.
// systemd closes the descriptor and says nothing.
inline constexpr char kBarrierKept = 'K';
inline constexpr char kBarrierLost = 'E';

struct NotifyMessage {
  bool store = false;
  bool remove = false;
  bool ready = false;
  bool stopping = false;
  bool barrier = false;
  bool complete = false;
  std::optional<int> exit_status;
  std::string name;  // FDNAME.
};

// What the lines say. INVALID_ARGUMENT: too long, a store or removal without a valid name, an exit
// status that is none.
StatusOr<NotifyMessage> ParseNotify(std::string_view text);

// Letters, digits and punctuation of ASCII without ':' (which separates the names in
// LISTEN_FDNAMES).
bool IsDescriptorName(std::string_view name);

std::string StoreText(const std::string& name);
std::string RemoveText(const std::string& name);
std::string CompleteText();

}  // namespace statehouse
