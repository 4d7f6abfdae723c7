// The texts that wait for an encoder, and which of them go into its next step.
//
// A job is a list of texts that somebody wants the vectors of. Every step takes a text of each job
// in turn until it is full, so that a job of one text passes one of thousands. It knows no thread.
#ifndef CUPOLA_ENGINE_EMBED_QUEUE_H_
#define CUPOLA_ENGINE_EMBED_QUEUE_H_

#include <cstdint>
#include <list>
#include <string>
#include <vector>

#include "model/encoder.h"

namespace cupola {

struct EmbedJob {
  int64_t id = 0;
  std::vector<int32_t> tokens;   // of all texts, one after the other
  std::vector<int32_t> types;    // of these tokens; empty: all are 0
  std::vector<int32_t> offsets;  // text i has the tokens offsets[i] .. offsets[i+1]
  int64_t num_texts() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

// The order is part of the FFI contract.
enum class EmbedEnd : int32_t { kDone = 0, kAborted, kFailed };

// How a job ended: with a vector for each of its texts, or with an error.
struct EmbedResult {
  int64_t id = 0;
  EmbedEnd end = EmbedEnd::kDone;
  std::string error;
  std::vector<float> vectors;
};

struct EmbedCounters {
  int64_t tokens = 0;
  int64_t finished = 0;
  int64_t aborted = 0;
  int64_t failed = 0;
  int64_t ended() const { return finished + aborted + failed; }
};

class EmbedQueue {
 public:
  struct Pick {
    int64_t job = 0;
    int64_t text = 0;
  };

  explicit EmbedQueue(const EncoderInfo& info) : info_(info) {}

  bool idle() const { return works_.empty(); }
  bool has(int64_t id) { return Find(id) != works_.end(); }
  // Jobs of which a text has been taken.
  int64_t num_running() const;
  const EmbedCounters& counters() const { return counters_; }

  void Add(EmbedJob job);
  // What goes into the next step: at least one text, unless it is idle.
  std::vector<Pick> Schedule();
  // The tokens of these texts as a step.
  EncoderInput InputOf(const std::vector<Pick>& picks) const;
  // One vector for each; a vector that is not finite is the end of its job. Jobs that have ended
  // meanwhile are passed over.
  void Commit(const std::vector<Pick>& picks, const float* vectors);
  // Ends one job, or all of them. Unknown ids are ignored.
  void End(int64_t id, EmbedEnd end, const std::string& error);
  void EndAll(EmbedEnd end, const std::string& error);
  // Results since the last call.
  std::vector<EmbedResult> TakeResults();

 private:
  struct Work {
    EmbedJob job;
    int64_t next = 0;  // the first text that no step has taken
    int64_t done = 0;
    std::vector<float> vectors;
  };

  std::list<Work>::iterator Find(int64_t id);
  void End(std::list<Work>::iterator work, EmbedEnd end, const std::string& error);
  static int32_t LengthOf(const Work& work, int64_t text);

  const EncoderInfo info_;
  std::list<Work> works_;
  std::vector<EmbedResult> results_;
  EmbedCounters counters_;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_EMBED_QUEUE_H_
