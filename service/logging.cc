#include "service/logging.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <chrono>
#include <ctime>

#include "service/api/log_fields.h"
#include "service/keeper/keeper_log.h"
#include "service/log.h"

namespace statehouse {
namespace {

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto since_epoch = message.time.time_since_epoch();
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
    const time_t seconds = static_cast<time_t>(ms / 1000);
    tm utc{};
    gmtime_r(&seconds, &utc);
    char time[32];
    strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &utc);
    const auto level = spdlog::level::to_string_view(message.level);
    fmt::format_to(std::back_inserter(out),
                   "{{\"time\":\"{}.{:03d}Z\",\"level\":\"{}\",\"process\":\"daemon\",\"pid\":{},"
                   "\"message\":\"{}\"",
                   time, ms % 1000, std::string_view(level.data(), level.size()), getpid(),
                   JsonEscape({message.payload.data(), message.payload.size()}));
    if (const LogFields* const fields = LogFields::Of(message.source)) {
      for (const LogFields::Field& field : fields->fields()) {
        const char* const quote = field.is_number ? "" : "\"";
        fmt::format_to(std::back_inserter(out), ",\"{}\":{}{}{}", field.name, quote,
                       JsonEscape(field.value), quote);
      }
    }
    fmt::format_to(std::back_inserter(out), "}}\n");
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>();
  }
};

void LogOfGrpc(gpr_log_func_args* line) {
  // Whoever reaches the port can make handshakes fail, as often as he likes.
  const bool is_handshake =
      std::string_view(line->file).find("ssl_transport_security") != std::string_view::npos;
  const auto level = is_handshake                               ? spdlog::level::debug
                     : line->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::warn
                     : line->severity == GPR_LOG_SEVERITY_INFO  ? spdlog::level::info
                                                                : spdlog::level::debug;
  spdlog::log(level, "grpc: {}", line->message);
}

// What it finds wrong with a message is answered to whoever sent it, as often as he likes.
void LogOfProtobuf(google::protobuf::LogLevel severity, const char* file, int line,
                   const std::string& message) {
  const auto level =
      severity == google::protobuf::LOGLEVEL_FATAL ? spdlog::level::critical : spdlog::level::debug;
  spdlog::log(level, "protobuf: {}", message);
}

}  // namespace

std::unique_ptr<spdlog::formatter> NewJsonFormatter() { return std::make_unique<JsonFormatter>(); }

void SetUpLogging(const std::string& format, const std::string& level) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>("", std::move(sink));
  const bool text = format == "text" || (format != "json" && isatty(STDERR_FILENO) != 0);
  if (text) {
    logger->set_formatter(std::make_unique<spdlog::pattern_formatter>(
        "%Y-%m-%dT%H:%M:%S.%eZ %l daemon %P: %v", spdlog::pattern_time_type::utc));
  } else {
    logger->set_formatter(NewJsonFormatter());
  }
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
  gpr_set_log_function(LogOfGrpc);
  google::protobuf::SetLogHandler(LogOfProtobuf);
}

}  // namespace statehouse
