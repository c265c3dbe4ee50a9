// What a page shows, in the address, without an entry in the browser's history: nobody has chosen it, so "Back" skips it.

export default function ({ data }) {
  const url = new URL(location.href);
  for (const [key, value] of Object.entries(data)) url.searchParams.set(key, value);
  if (url.href !== location.href) history.replaceState(history.state, "", url);
}
