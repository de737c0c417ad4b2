// The job of `just bench-abi` in TypeScript, with the request by value.
type Head = { headers: { name: string; value: string }[] };

export const valueHandler = {
  handle(head: Head) {
    const key = head.headers.find((header) => header.name === "x-api-key")?.value;
    if (key !== "s3cret") return { tag: "respond", val: { status: 401, headers: [], body: new Uint8Array() } };
    return {
      tag: "modify",
      val: [
        { tag: "set", val: ["x-user", "alice"] },
        { tag: "remove", val: "cookie" },
        { tag: "set", val: ["authorization", "Bearer internal"] },
      ],
    };
  },
};
