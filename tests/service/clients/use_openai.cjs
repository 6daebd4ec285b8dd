// openai-node as its users have it: completions, chat, streams, helpers, embeddings, models, errors, leaving early.

const OpenAI = require("openai");

const baseURL = process.argv[2];
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: 'Spell "groundup".' }];
const chat = { model: "groundup-chat", messages, temperature: 0 };

const checks = {
  chat: async () => (await client.chat.completions.create(chat)).choices[0].message.content,
  stream: async () => {
    const texts = [];
    for await (const chunk of await client.chat.completions.create({ ...chat, stream: true })) {
      texts.push(chunk.choices[0].delta.content ?? "");
    }
    return texts;
  },
  helper: async () => client.chat.completions.stream(chat).finalContent(),
  completion: async () => {
    const story = { model: "groundup-base", prompt: "Once upon a time", max_tokens: 16, temperature: 0 };
    return (await client.completions.create(story)).choices[0].text;
  },
  embedding: async () =>
    (await client.embeddings.create({ model: "groundup-base", input: "a boat" })).data[0].embedding,
  models: async () => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return ids;
  },
  error: async () => {
    try {
      await client.chat.completions.create({ ...chat, model: "nope" });
    } catch (error) {
      return [error instanceof OpenAI.NotFoundError, error.code, error.param, error.requestID !== undefined];
    }
  },
  leave: async () => {
    const stream = await client.completions.create({
      model: "groundup-base", prompt: "Once", max_tokens: 200, ignore_eos: true, stream: true,
    });
    for await (const _ of stream) break;
    return stream.controller.signal.aborted;
  },
};

(async () => {
  const found = {};
  for (const [name, check] of Object.entries(checks)) {
    try {
      found[name] = await check();
    } catch (error) {
      found[name] = `${error.constructor.name}: ${error.message}`;
    }
  }
  console.log(JSON.stringify(found));
})();
