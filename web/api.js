// The page's door to the server: the model's name, and a stream of answer pieces. Knows no element of the page.

/** An answer of the server that is not a success, with its sentence. */
export class ApiError extends Error {}

/** The id of the first model that the server offers. */
export async function fetchModel(apiKey) {
  const response = await request("v1/models", { headers: headers(apiKey) });
  return (await response.json()).data[0].id;
}

/**
 * Asks for a chat completion and yields {text} pieces, {reason} at the end of the answer and {usage} after it.
 * Ends early with an AbortError when `signal` fires.
 */
export async function* streamChat(body, apiKey, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { ...headers(apiKey), "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const { error, choices, usage } = JSON.parse(data);
    if (error) throw new ApiError(error.message);
    const choice = choices[0];
    if (choice?.delta.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { reason: choice.finish_reason };
    if (usage) yield { usage };
  }
  throw new ApiError("The server ended the answer early.");
}

function headers(apiKey) {
  return apiKey ? { authorization: `Bearer ${apiKey}` } : {};
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw new ApiError("The server cannot be reached.", { cause });
  }
  if (response.ok) return response;
  if (response.status === 401) throw new ApiError("This server asks for an API key: enter it in the settings.");
  const body = await response.json().catch(() => null);
  throw new ApiError(body?.error?.message ?? `The server answered with status ${response.status}.`);
}

/** The `data:` lines of a stream of server-sent events, wherever the network cuts it. */
async function* events(stream) {
  let rest = "";
  for await (const piece of pieces(stream.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

async function* pieces(stream) {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.releaseLock();
  }
}
