// The arguments of one forward: a ragged batch of token rows over a paged cache.
#ifndef CUPOLA_MODEL_STEP_INPUT_H_
#define CUPOLA_MODEL_STEP_INPUT_H_

#include <cstdint>
#include <vector>

namespace cupola {

// n rows (tokens), b sequences, p pages, m rows with logits.
struct StepInput {
  std::vector<int32_t> ids;          // [n] token ids, sequence after sequence
  std::vector<int32_t> positions;    // [n] position of each token in its sequence
  std::vector<int32_t> slots;        // [n] page * page_size + offset, where its K and V go
  std::vector<int32_t> q_indptr;     // [b+1] sequence s owns rows q_indptr[s] .. q_indptr[s+1]
  std::vector<int32_t> page_indptr;  // [b+1] and entries page_indptr[s] .. of page_ids
  std::vector<int32_t> page_ids;     // [p] pages of each sequence, in order
  // The same for layers with a window, if the model has some. A page that nobody sees any more is
  // named as page 0.
  std::vector<int32_t> window_slots;     // [n]
  std::vector<int32_t> window_page_ids;  // [p]
  std::vector<int32_t> kv_len;           // [b] tokens in the cache after this step
  std::vector<int32_t> out_rows;         // [m] rows whose logits are wanted, at least one
};

// The keys and values of page `src` become those of `dst` too, in all layers; those with a window
// keep them in other places.
struct PageCopy {
  int32_t src;
  int32_t dst;
  int32_t window_src = 0;
  int32_t window_dst = 0;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_STEP_INPUT_H_
